"""A finding that a re-export repairs says which command plans it, where that can be done."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import build
import pytest
from build import SweepSpec
from command import run

from ckptdiff.records.report import CheckReport
from ckptdiff.report.lines import COLUMNS, command_lines

SPEC = SweepSpec()


def steps(report: CheckReport) -> dict[str, str]:
    """The next step of each error by code and first scheme."""
    return {
        f"{finding.code} {finding.schemes[0]}": finding.next_step
        for finding in report.findings
        if finding.severity == "error"
    }


def test_all_but_the_reference_are_named(bug: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bug.parent)
    found = steps(build.check(Path(bug.name)))
    words = shlex.split(found[f"CK501 {SPEC.scheme(10)}"])
    wanted = [f"quantized/{SPEC.scheme(percent)}" for percent in (10, 30, 50)]
    assert words == [
        "ckptdiff", "reexport", *wanted, "--base", "quantized/../base", "--dry-run"
    ]  # fmt: skip
    done = run(*words[1:], cwd=bug.parent)
    assert done.code == 0 and done.text.startswith("PLAN: 3 schemes")


def test_a_name_with_a_space_is_quoted(bug: Path) -> None:
    odd = bug / "my top10"
    (bug / SPEC.scheme(10)).rename(odd)
    (step,) = [s for key, s in steps(build.check(bug)).items() if key == "CK302 my top10"]
    assert str(odd) in shlex.split(step)
    assert run(*shlex.split(step)[1:]).code == 0


def test_in_the_working_directory_ids_are_paths(bug: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bug)
    step = steps(build.check(Path()))[f"CK302 {SPEC.scheme(10)}"]
    assert shlex.split(step)[2] == SPEC.scheme(10)
    assert run(*shlex.split(step)[1:], cwd=bug).code == 0


def test_without_base_or_manifest_the_manual_is_named(bug: Path) -> None:
    shutil.rmtree(bug.parent / "base")
    assert set(steps(build.check(bug)).values()) == {"ckptdiff rule CK501", "ckptdiff rule CK302"}


def test_without_a_manifest_the_manual_is_named(sweep: Path) -> None:
    scheme = sweep / SPEC.scheme(10)
    shutil.rmtree(scheme / "layer-sensitivity")
    tensors = dict(build.fp8_tensors(SPEC.selected(10)))
    del tensors[next(name for name in tensors if name.endswith("weight_scale"))]
    build.write_weights(scheme, tensors)
    assert steps(build.check(sweep))[f"CK201 {scheme.name}"] == "ckptdiff rule CK201"


def test_commands_are_cut_as_a_shell_takes_them() -> None:
    command = f"ckptdiff reexport {' '.join(['some/path/of/a/scheme'] * 9)} 'a b' --dry-run"
    lines = list(command_lines(command, "  next:"))
    assert len(lines) > 2 and all(len(line) <= COLUMNS for line in lines)
    joined = "\n".join(lines).replace("\\\n", "").removeprefix("  next:")
    assert shlex.split(joined) == shlex.split(command)
    assert list(command_lines("ckptdiff rule CK1", "  next:")) == ["  next: ckptdiff rule CK1"]
