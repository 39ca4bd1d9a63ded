"""`ckptdiff check` as users and pipelines run it: every option, stdout, stderr, exit codes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import build
import jsonschema
import pytest
from command import check, run

from ckptdiff.report.json import json_schema

GOLDEN = Path(__file__).parent.parent / "golden"
SPEC = build.SweepSpec()
TOP10, TOP30, TOP100 = (SPEC.scheme(percent) for percent in (10, 30, 100))


@pytest.fixture
def warned(sweep: Path) -> Path:
    """ROOT of a sweep with a warning and no error: a manifest states another percentage."""
    warn(sweep)
    return sweep


# The report


def test_healthy_sweep(sweep: Path) -> None:
    result = check(sweep)
    assert result.code == 0
    assert result.err == ""
    assert result.report["verdict"] == {
        "status": "pass",
        "complete": True,
        "sentence": "4 schemes, no fault found: all follow their manifests, "
        "no two have the same weights",
        "safe": [SPEC.scheme(percent) for percent in SPEC.percents],
    }
    assert result.report["base"] == {"id": "../base", "found_by": "search"}
    assert {row["status"] for row in result.report["schemes"]} <= {"ok", "info"}
    assert [row["identity"] for row in result.report["schemes"]] == ["A", "B", "C", "D"]


def test_founding_bug(bug: Path) -> None:
    result = check(bug)
    report = result.report
    assert result.code == 1
    assert result.codes == {"CK302", "CK501"}
    assert [f["code"] for f in report["findings"]].count("CK501") == 1
    assert report["verdict"]["status"] == "fail"
    assert report["verdict"]["complete"]
    assert report["verdict"]["safe"] == [TOP100]
    assert [row["identity"] for row in report["schemes"]] == ["A"] * 4


def test_text_report_of_the_founding_bug(bug: Path) -> None:
    result = run("check", bug.name, cwd=bug.parent)
    assert result.code == 1
    golden = GOLDEN / "check_founding_bug.txt"
    if os.environ.get("CKPTDIFF_GOLDEN"):  # write it anew, then read the difference
        golden.write_bytes(result.out)
    assert result.out == golden.read_bytes()
    assert max(map(len, result.text.splitlines())) <= 80


def test_text_is_never_wider_than_the_screen(sweep: Path) -> None:
    long = "fp8_autoquant_all_layers_top10_" + "大小" * 30
    (sweep / TOP10).rename(sweep / long)
    (sweep / long / "model.safetensors").write_bytes(b"")
    for name in (long, TOP30):
        (sweep / name / ".hidden-and-very-long-name-of-a-directory-that-is-passed-over").mkdir()
    text = run("check", sweep).text
    assert max(map(columns, text.splitlines())) <= 80
    assert max(map(columns, run("scan", sweep).text.splitlines())) <= 80


def columns(line: str) -> int:
    return sum(2 if "\u2e80" <= char <= "\uffff" else 1 for char in line)


# Keys, as contract and schema have them. `config` is ours: the report names its settings.
LOCATION = {"module", "tensor", "shard", "offset", "expected", "actual"}
FINDING = {
    "code", "name", "severity", "schemes", "message", "next_step", "expected", "actual",
    "locations", "fingerprint",
}  # fmt: skip
REPORT: dict[str, Any] = {
    "schema": None,
    "tool": {"name", "version"},
    "root": None,
    "config": None,
    "base": {"id", "found_by"},
    "verdict": {"status", "complete", "sentence", "safe"},
    "schemes": {
        "id", "family", "algo", "producer", "bytes", "tensors", "modules", "declared", "actual",
        "dtypes", "fingerprint", "identity", "status", "proof",
    },
    "identity": {"letter", "fingerprint", "schemes", "bytes"},
    "findings": FINDING,
    "skipped": {"code", "scheme", "reason"},
    "ignored": FINDING | {"reason"},
    "unread": {"path", "reason"},
    "passed_over": {"path", "reason"},
    "counts": {"schemes", "errors", "warnings", "infos", "ignored", "skipped", "unread"},
}  # fmt: skip


def test_json_has_the_keys_of_the_contract_and_fits_its_schema(bug: Path) -> None:
    # A sweep that fills every list of the report.
    loop = bug / "loop"
    loop.symlink_to("loop")
    (bug / ".hidden").mkdir()
    shutil.rmtree(bug / TOP30 / "layer-sensitivity")
    report = check(bug, "--ignore", "CK302").report
    assert list(report) == list(REPORT)
    assert report["schema"] == "ckptdiff.check/1"
    for key, keys in REPORT.items():
        values = report[key] if isinstance(report[key], list) else [report[key]]
        assert values, f"{key} is empty, so this test sees nothing"
        if keys is not None:
            assert all(set(value) == keys for value in values), key
    for row in report["schemes"]:
        assert set(row["actual"]) == {"quantized", "total", "effective_bits"}
        assert row["declared"] is None or set(row["declared"]) == {"percent", "selected", "total"}
    for finding in report["findings"] + report["ignored"]:
        assert all(set(place) == LOCATION for place in finding["locations"])
    schema = json_schema("ckptdiff.check/1")
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    validator.validate(report)


def test_json_is_the_same_bytes_wherever_the_sweep_lies(
    bug: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "ckptdiff.toml").write_text('fail_on = "warning"')
    (bug / "loop").symlink_to("loop")
    copy = tmp_path_factory.mktemp("elsewhere") / "deeper"
    shutil.copytree(bug, copy / bug.name, symlinks=True)
    shutil.copytree(tmp_path / "base", copy / "base")
    shutil.copy(tmp_path / "ckptdiff.toml", copy)
    first = check(Path(bug.name), cwd=tmp_path)
    assert first.out == check(Path(bug.name), cwd=tmp_path).out
    assert first.out == check(Path(bug.name), "--jobs", "1", cwd=copy).out
    assert first.report["config"] == "../ckptdiff.toml"
    assert str(tmp_path).encode() not in first.out


def test_every_next_step_is_a_command_that_works(bug: Path) -> None:
    for finding in check(bug).report["findings"]:
        program, *arguments = finding["next_step"].split()
        assert program == "ckptdiff"
        assert run(*arguments).code == 0


def test_root_defaults_to_the_working_directory(sweep: Path) -> None:
    assert run("check", "--json", cwd=sweep).report["root"] == "."
    single = run("check", "--json", cwd=sweep / TOP10)
    assert single.code == 0
    assert [row["id"] for row in single.report["schemes"]] == ["."]


def test_several_roots(bug: Path, tmp_path: Path) -> None:
    healthy = build.write_sweep(tmp_path / "other")
    result = run("check", healthy, bug, "--json")
    assert result.code == 1
    reports = json.loads(result.out)
    assert [report["root"] for report in reports] == [str(healthy), str(bug)]
    assert [report["verdict"]["status"] for report in reports] == ["pass", "fail"]
    # Unread in one and a finding in the other: 1; unread alone: 2.
    (healthy / "loop").symlink_to("loop")
    assert run("check", healthy, bug).code == 1
    assert run("check", healthy, healthy / TOP10).code == 2
    assert run("check", healthy / TOP10, tmp_path / "nothing").code == 2


# Options


def test_base(sweep: Path, tmp_path: Path) -> None:
    other = build.write_base(tmp_path / "another/place/for/it")
    result = check(sweep, "--base", other)
    assert result.code == 0
    assert result.report["base"] == {"id": "../another/place/for/it", "found_by": "--base"}
    # Two that fit and none named: no base, and that is said.
    build.write_base(tmp_path / "second")
    result = check(sweep)
    assert result.code == 0
    assert result.report["base"] is None
    (skip,) = (s for s in result.report["skipped"] if s["code"] == "CK6")
    assert "../base, ../second" in skip["reason"]


def test_no_hash(bug: Path, sweep: Path) -> None:
    result = check(bug, "--no-hash")
    assert result.code == 1
    assert result.codes == {"CK302"}
    assert "4 schemes quantize the same layers" in result.report["verdict"]["sentence"]
    assert result.report["identity"] == []
    assert {s["code"] for s in result.report["skipped"]} >= {"CK501", "CK502", "CK503"}
    assert all(row["fingerprint"] is None for row in result.report["schemes"])


def test_no_hash_reads_no_tensor(sweep: Path) -> None:
    result = run("check", sweep, "--no-hash", "--progress", "json")
    assert "hash" not in {json.loads(line)["stage"] for line in result.err.splitlines()}


def test_format(sweep: Path) -> None:
    assert run("check", sweep, "--format", "json").out == check(sweep).out
    assert run("check", sweep, "--format", "text").out == run("check", sweep).out
    assert run("check", sweep, "--format", "yaml").code == 2
    assert run("check", sweep, "--format", "json", "--json").out == check(sweep).out


@pytest.mark.parametrize("command", ["check", "rule"])
def test_two_formats_are_one_too_many(command: str) -> None:
    done = run(command, "--json", "--format", "text")
    assert (done.code, done.out) == (2, b"")
    assert "--json and --format text: give one of them" in done.err


def test_output_files(bug: Path, tmp_path: Path) -> None:
    text, other = tmp_path / "report.txt", tmp_path / "again.TXT"
    report = tmp_path / "report.json"
    report.write_text("what was there before")
    result = run("check", bug, "-o", text, "-o", report, "--output", other)
    assert result.code == 1
    assert text.read_bytes() == other.read_bytes() == result.out
    assert report.read_bytes() == check(bug).out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.TXT", "base", "quantized", "report.json", "report.txt"
    ]  # fmt: skip
    assert text.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


@pytest.mark.parametrize("name", ["report.yaml", "report", "report.", ".json", "a.json.bak"])
def test_output_suffix_that_picks_no_format(sweep: Path, tmp_path: Path, name: str) -> None:
    result = run("check", sweep, "-o", tmp_path / name)
    assert result.code == 2
    assert ".json" in result.err
    assert not (tmp_path / name).exists()


def test_output_that_cannot_be_written(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    for target in ("folder.json", "no/such/folder.json", "file/report.json"):
        result = run("check", sweep, "-o", tmp_path / target)
        assert result.code == 2
        assert "cannot be written" in result.err


def test_output_to_a_device(sweep: Path, tmp_path: Path) -> None:
    link = tmp_path / "null.json"
    link.symlink_to("/dev/null")
    assert run("check", sweep, "-o", link).code == 0
    assert link.is_symlink()


def test_select_and_ignore(bug: Path) -> None:
    assert check(bug, "--select", "CK501").codes == {"CK501"}
    assert check(bug, "--select", "ck5").codes == {"CK501"}
    assert check(bug, "--select", "identical-weights").codes == {"CK501"}
    assert check(bug, "--select", "CK1,CK302").codes == {"CK302"}
    assert check(bug, "--select", "CK1", "--select", "CK302").codes == {"CK302"}
    clean = check(bug, "--select", "CK1")
    assert (clean.code, clean.codes) == (0, set())
    some = check(bug, "--ignore", "CK501")
    assert (some.code, some.codes) == (1, {"CK302"})
    none = check(bug, "--ignore", "CK5,CK3")
    assert (none.code, none.codes) == (0, set())
    assert {f["code"] for f in none.report["ignored"]} == {"CK302", "CK501"}
    assert {f["reason"] for f in none.report["ignored"]} == {"ignored on the command line"}
    assert none.report["counts"]["ignored"] == 4
    assert "ignored" in run("check", bug, "--ignore", "CK5").text


@pytest.mark.parametrize("code", ["CK999", "XY1", "no-such-rule", "CK5011"])
@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_unknown_code(sweep: Path, option: str, code: str) -> None:
    result = run("check", sweep, option, code)
    assert result.code == 2
    assert code in result.err
    assert "ckptdiff rule" in result.err


@pytest.mark.parametrize(
    ("fail_on", "codes"),
    [(None, (0, 0, 2, 1)), ("error", (0, 0, 2, 1)), ("warning", (0, 1, 2, 1)),
     ("never", (0, 0, 2, 0))],
)  # fmt: skip
def test_fail_on(tmp_path: Path, fail_on: str | None, codes: tuple[int, ...]) -> None:
    sweeps = []
    for name in ("healthy", "warned", "unread", "bug"):
        sweeps.append(build.write_sweep(tmp_path / name))
    warn(sweeps[1])
    (sweeps[2] / "loop").symlink_to("loop")
    build.copy_weights(sweeps[3], 100, (10, 30, 50))
    options = () if fail_on is None else ("--fail-on", fail_on)
    results = [check(root, *options) for root in sweeps]
    assert tuple(result.code for result in results) == codes
    # What is wrong is told all the same.
    assert [r.report["verdict"]["complete"] for r in results] == [True, True, False, True]
    assert results[3].report["verdict"]["status"] == "fail"
    assert results[1].report["verdict"]["status"] == ("fail" if fail_on == "warning" else "pass")


def warn(root: Path) -> None:
    file = root / TOP30 / f"layer-sensitivity/{TOP30}_coverage_from_baseline.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "top_percent": 31}))


def test_rules_of_hashes_alone_need_hashes(bug: Path) -> None:
    refused = run("check", bug, "--select", "CK501", "--no-hash")
    assert refused.code == 2 and "--no-hash" in refused.err
    assert check(bug, "--select", "CK501,CK3", "--no-hash").code != 2


def test_fail_on_with_a_finding_and_something_unread(bug: Path) -> None:
    (bug / "loop").symlink_to("loop")
    assert check(bug).code == 1
    assert check(bug, "--fail-on", "never").code == 2
    assert check(bug, "--fail-on", "sometimes").code == 2


def test_the_fixtures_are_what_they_say(warned: Path) -> None:
    result = check(warned)
    assert result.code == 0
    assert result.codes == {"CK304"}


def test_require(sweep: Path) -> None:
    assert check(sweep, "--require", "base,manifest").code == 0
    assert check(sweep, "--require", "base", "--require", "manifest").code == 0
    shutil.rmtree(sweep.parent / "base")
    shutil.rmtree(sweep / TOP30 / "layer-sensitivity")
    assert check(sweep).code == 0
    base = check(sweep, "--require", "base")
    assert base.code == 2
    assert list(base.unread) == ["."]
    manifest = check(sweep, "--require", "manifest")
    assert manifest.code == 2
    assert list(manifest.unread) == [TOP30]
    assert len(check(sweep, "--require", "base,manifest").unread) == 2
    assert run("check", sweep, "--require", "tokenizer").code == 2


def test_expect(sweep: Path) -> None:
    assert [check(sweep, "--expect", number).code for number in ("0", "3", "4", "5")] == [
        0,
        0,
        0,
        2,
    ]
    assert "4 schemes found, 5 expected" in run("check", sweep, "--expect", "5").text
    for wrong in ("-1", "many", "1.5"):
        assert run("check", sweep, "--expect", wrong).code == 2


def test_jobs(sweep: Path) -> None:
    assert check(sweep, "--jobs", "1").out == check(sweep, "--jobs", "64").out
    for wrong in ("0", "-1", "all"):
        assert run("check", sweep, "--jobs", wrong).code == 2


def test_unknown_option_and_command(sweep: Path) -> None:
    assert run("check", sweep, "--fast").code == 2
    assert run("chekc", sweep).code == 2
    assert run("check", "--help").code == 0
    assert run("--version").code == 0
