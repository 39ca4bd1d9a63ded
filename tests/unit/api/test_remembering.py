"""The report of an unchanged sweep is remembered, and no other one ever is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from test_startup import modules_after

import ckptdiff
from ckptdiff.api import checking, remembering
from ckptdiff.records.report import CheckReport
from ckptdiff.sources import trace
from ckptdiff.sources.cache import Cache

SPEC = build.SweepSpec()


@pytest.fixture(autouse=True)
def everything_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can set a file's ctime back, and no test should wait for two seconds."""
    monkeypatch.setattr(trace, "_SETTLED_NS", -(10**18))


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roots that were judged in this test, one entry a run."""
    from ckptdiff.api import judging

    seen: list[str] = []
    real = judging.judged

    def noted(request: object, **options: object) -> CheckReport:
        seen.append(request.root)  # type: ignore[attr-defined]
        return real(request, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(judging, "judged", noted)
    return seen


def test_an_unchanged_sweep_is_not_judged_again(bug: Path, judged: list[str]) -> None:
    first = ckptdiff.check(bug)
    assert first.findings
    second = ckptdiff.check(bug)
    assert judged == [str(bug)]
    assert second == first
    assert ckptdiff.render(second, "json") == ckptdiff.render(first, "json")
    assert ckptdiff.render(second) == ckptdiff.render(first)


SECOND_RUN = """
from ckptdiff.sources import trace
trace._SETTLED_NS = -10**18
from ckptdiff.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code == 1, end.code
"""


def test_the_second_run_of_the_command_imports_no_rule(bug: Path) -> None:
    heavy = {"ckptdiff.rules.engine", "ckptdiff.analysis.evidence", "numpy"}
    assert heavy <= modules_after(SECOND_RUN, "check", bug)
    assert not heavy & modules_after(SECOND_RUN, "check", bug)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes in place and put the times back as far as a program can."""
    before = path.stat()
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_config(root: Path) -> None:
    path = root / SPEC.scheme(30) / "config.json"
    rewrite(path, b'"num_hidden_layers": 4', b'"num_hidden_layers": 5')


def edit_manifest(root: Path) -> None:
    path = next((root / SPEC.scheme(30)).glob("layer-sensitivity/*_coverage_from_baseline.json"))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "top_percent": 77.0}))


def edit_a_weight(root: Path) -> None:
    path = root / SPEC.scheme(30) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_a_shard(root: Path) -> None:
    path = root / SPEC.scheme(30) / "model.safetensors"
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)


def add_a_scheme(root: Path) -> None:
    shutil.copytree(root / SPEC.scheme(30), root / "another")


def add_a_stray(root: Path) -> None:
    (root / SPEC.scheme(30) / "extra.safetensors").write_bytes(b"")


def remove_a_scheme(root: Path) -> None:
    shutil.rmtree(root / SPEC.scheme(30))


def remove_the_base(root: Path) -> None:
    shutil.rmtree(root.parent / "base")


def add_a_second_base(root: Path) -> None:
    shutil.copytree(root.parent / "base", root.parent / "base2")


def edit_the_base(root: Path) -> None:
    path = root.parent / "base" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def forbid_a_file(root: Path) -> None:
    (root / SPEC.scheme(30) / "config.json").chmod(0)


@pytest.mark.parametrize(
    "change",
    [
        edit_config, edit_manifest, edit_a_weight, replace_a_shard, add_a_scheme, add_a_stray,
        remove_a_scheme, remove_the_base, add_a_second_base, edit_the_base, forbid_a_file,
    ],
)  # fmt: skip
def test_any_change_is_noticed(
    bug: Path, judged: list[str], change: Callable[[Path], None]
) -> None:
    ckptdiff.check(bug)
    change(bug)
    assert ckptdiff.check(bug) == ckptdiff.check(bug, cache=False)
    assert len(judged) == 3


def test_a_link_that_leads_elsewhere_is_noticed(sweep: Path, judged: list[str]) -> None:
    target = sweep.parent.parent / f"{sweep.parent.name}-elsewhere"
    shutil.move(sweep / SPEC.scheme(30), target)
    (sweep / SPEC.scheme(30)).symlink_to(target)
    (sweep / "dangling").symlink_to(target.with_name(f"{target.name}-later"))
    assert ckptdiff.check(sweep).unread  # the dangling link: not remembered
    (sweep / "dangling").unlink()
    first = ckptdiff.check(sweep)
    assert ckptdiff.check(sweep) == first
    assert len(judged) == 2
    other = target.with_name(f"{target.name}-other")
    shutil.copytree(target, other)
    shutil.rmtree(target)
    other.rename(target)
    ckptdiff.check(sweep)
    assert len(judged) == 3


def test_what_could_not_be_looked_at_is_tried_again(sweep: Path, judged: list[str]) -> None:
    (sweep / SPEC.scheme(30) / "model.safetensors").unlink()
    (sweep / SPEC.scheme(30) / "model.safetensors").symlink_to("nowhere")
    assert ckptdiff.check(sweep).unread
    ckptdiff.check(sweep)
    assert len(judged) == 2


def test_another_request_is_another_report(
    bug: Path, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ckptdiff.check(bug)
    options: list[dict[str, object]] = [
        {"hashes": False}, {"select": ["CK3"]}, {"ignore": ["CK501"]}, {"fail_on": "warning"},
        {"require": ["base"]}, {"expect": 1}, {"base": bug.parent / "base"}, {"rehash": True},
        {"cache": False},
    ]  # fmt: skip
    for option in options:
        ckptdiff.check(bug, **option)  # type: ignore[arg-type]
    assert len(judged) == 1 + len(options)
    monkeypatch.chdir(bug)
    assert ckptdiff.check(".").root == "."
    monkeypatch.chdir(bug.parent)
    assert ckptdiff.check(bug.name).root == bug.name
    assert ckptdiff.check(bug) == whole
    assert len(judged) == 4 + len(options)  # the place is a part of the question


def test_files_that_have_not_settled_are_not_trusted(
    bug: Path, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_SETTLED_NS", 2_000_000_000)
    ckptdiff.check(bug)
    ckptdiff.check(bug)
    assert len(judged) == 2


def test_another_program_judges_anew(
    bug: Path, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ckptdiff.check(bug)
    monkeypatch.setattr(remembering, "_program", lambda: [("rules.py", 1, 1)])
    ckptdiff.check(bug)
    assert len(judged) == 2


def test_a_damaged_entry_is_no_entry(bug: Path, judged: list[str]) -> None:
    first = ckptdiff.check(bug)
    key = keys(bug)
    for blob in (b"", b"{}", b"\xff", b'{"seen": {}, "report": {"schema": 1}}'):
        Cache().put({key: blob})
        assert ckptdiff.check(bug) == first
    assert len(judged) == 5


def keys(root: Path) -> bytes:
    """The key under which the report of a plain check of `root` is remembered."""
    asked: list[bytes | None] = []
    real = checking.key_of
    try:
        checking.key_of = lambda request: asked.append(real(request)) or asked[0]  # type: ignore
        ckptdiff.check(root)
    finally:
        checking.key_of = real
    assert asked[0]
    return asked[0]


def test_names_that_json_cannot_hold_are_not_remembered(sweep: Path, judged: list[str]) -> None:
    odd = Path(os.fsdecode(os.fsencode(sweep) + b"/top\xff"))
    odd.mkdir()
    (odd / "adapter_model.bin").write_bytes(b"")
    first = ckptdiff.check(sweep)
    assert ckptdiff.check(sweep) == first
    assert len(judged) == 2


def test_a_working_directory_that_is_gone(bug: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); import ckptdiff"
    script += "; print(ckptdiff.check(sys.argv[2]).verdict.status)"
    done = subprocess.run(
        [sys.executable, "-c", script, gone, bug], capture_output=True, text=True, check=True
    )
    assert done.stdout == "fail\n"
