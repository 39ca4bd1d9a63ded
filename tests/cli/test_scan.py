"""`ckptdiff scan`: the inventory, from headers alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import build
import jsonschema
import pytest
from command import run

from ckptdiff.report.json import json_schema

SPEC = build.SweepSpec()


def test_inventory(sweep: Path) -> None:
    result = run("scan", sweep, "--json")
    assert result.code == 0
    report = result.report
    assert report["schema"] == "ckptdiff.scan/1"
    assert report["base"] == {"id": "../base", "found_by": "search"}
    assert [row["id"] for row in report["schemes"]] == [SPEC.scheme(p) for p in SPEC.percents]
    for row, percent in zip(report["schemes"], SPEC.percents, strict=True):
        quantized = len(SPEC.selected(percent))
        assert row["declared"] == {"percent": percent, "selected": quantized, "total": 28}
        assert row["actual"]["quantized"] == quantized
        assert sum(row["dtypes"].values()) == row["bytes"]
        assert row["fingerprint"] is None
    schema = json_schema("ckptdiff.scan/1")
    jsonschema.Draft202012Validator(schema).validate(report)


@pytest.mark.parametrize("verb", ["scan", "layers"])
def test_a_scheme_whose_tensors_are_not_known_is_not_fine(sweep: Path, verb: str) -> None:
    scheme = SPEC.scheme(30)
    os.truncate(sweep / scheme / "model.safetensors", 100)
    result = run(verb, sweep, "--json")
    assert result.code == 2
    assert [row["path"] for row in result.report["unread"]] == [f"{scheme}/model.safetensors"]
    if verb == "scan":
        statuses = {row["id"]: row["status"] for row in result.report["schemes"]}
        assert statuses.pop(scheme) == "unread" and set(statuses.values()) == {"ok"}


def test_text(sweep: Path) -> None:
    result = run("scan", sweep)
    assert result.code == 0
    assert result.text.startswith("4 schemes, ")
    assert max(map(len, result.text.splitlines())) <= 80
    assert "base: ../base" in result.text


def test_root_defaults_to_the_working_directory(sweep: Path) -> None:
    assert run("scan", "--json", cwd=sweep).report["root"] == "."


def test_it_judges_nothing(bug: Path) -> None:
    assert run("scan", bug).code == 0


def test_it_reads_no_tensor(sweep: Path) -> None:
    result = run("scan", sweep, "--progress", "json")
    assert {json.loads(line)["stage"] for line in result.err.splitlines()} == {"read"}
    assert result.out == run("scan", sweep).out
    assert run("scan", sweep, "--progress", "off").err == ""


def test_base(sweep: Path, tmp_path: Path) -> None:
    other = build.write_base(tmp_path / "a/b/c/d")
    found = run("scan", sweep, "--json", "--base", other).report["base"]
    assert found == {"id": "../a/b/c/d", "found_by": "--base"}


def test_what_could_not_be_read_is_said(sweep: Path) -> None:
    (sweep / "loop").symlink_to("loop")
    result = run("scan", sweep)
    assert result.code == 2
    assert "loop: symlink loop" in result.text
    assert run("scan", sweep, "--json").unread == {"loop": "symlink loop"}


def test_the_same_bytes_twice(sweep: Path) -> None:
    assert run("scan", sweep, "--json").out == run("scan", sweep, "--json").out


@pytest.mark.parametrize("arguments", [("--fast",), ("a", "b"), ("--progress", "loud")])
def test_usage_errors(sweep: Path, arguments: tuple[str, ...]) -> None:
    assert run("scan", sweep, *arguments).code == 2
