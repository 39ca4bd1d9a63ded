"""`ckptdiff sweep` as users run it, on the samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run

import ckptdiff
from tests.cli.samples import (
    BASE,
    BASELINE,
    NAME,
    PERCENTS,
    PROVENANCE,
    SWEEP,
    WHOLE,
    files,
    names,
)


def test_sweep_builds_every_scheme_of_a_ranking(tmp_path: Path) -> None:
    out = tmp_path / "new"
    arguments = ["sweep", BASELINE, "--base", BASE, "--donor", WHOLE, "--out", out]
    shown = run(*arguments, "--top", "10,30,50,100", "--dry-run")
    assert shown.code == 0 and not out.exists()
    done = run(*arguments, "--top", "10,30,50,100", "--yes")
    assert done.code == 0, done.err
    assert names(out) == {NAME.format(percent) for percent in PERCENTS}
    for percent in PERCENTS:
        written, export = (files(root / NAME.format(percent)) for root in (out, SWEEP))
        manifest = f"layer-sensitivity/{NAME.format(percent)}_coverage_from_baseline.json"
        ours, theirs = json.loads(written.pop(manifest)), json.loads(export.pop(manifest))
        assert list(ours) == list(theirs)
        for key in ("baseline_dir", "baseline_manifest"):
            assert ours.pop(key).endswith(theirs.pop(key).removeprefix("sweep/"))
        assert ours == theirs
        written.pop(PROVENANCE)
        assert written == export
    report = ckptdiff.check(out, base=BASE, deep=True)
    assert report.verdict.status == "pass" and len(report.schemes) == 4


def test_a_manifest_names_its_baseline_wherever_sweep_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BASELINE)
    done = run(
        "sweep", ".", "--donor", WHOLE, "--base", BASE, "--out", tmp_path, "--top", "10", "--yes"
    )
    assert done.code == 0, done.err
    (manifest,) = tmp_path.glob("*/layer-sensitivity/*_coverage_from_baseline.json")
    assert Path(json.loads(manifest.read_text())["baseline_dir"]).name == BASELINE.name


def test_a_baseline_that_is_its_own_donor_goes_by_its_name(tmp_path: Path) -> None:
    given = ("--base", BASE, "--out", tmp_path, "--top", "10", "--dry-run")
    assert f"takes 7 from {WHOLE.name}" in " ".join(run("sweep", WHOLE, *given).text.split())


def test_sweep_says_what_it_cannot_do(tmp_path: Path) -> None:
    out = tmp_path / "new"
    done = run("sweep", BASELINE, "--base", BASE, "--out", out, "--top", "10", "--yes")
    assert done.code == 2 and "visual.merger.mlp.2" in done.text
    for wrong in ("0", "101", "ten", "", "10,10", "nan", "inf"):
        done = run("sweep", BASELINE, "--base", BASE, "--out", out, "--top", wrong, "--dry-run")
        assert done.code == 2 and "ercentage" in done.err, wrong
    done = run("sweep", BASE, "--base", BASE, "--out", out, "--top", "10", "--dry-run")
    assert done.code == 2
    assert not out.exists()


def test_sweep_plans_nothing_over_what_is_there(tmp_path: Path) -> None:
    given = ("--base", BASE, "--donor", WHOLE, "--out", tmp_path, "--dry-run")
    (tmp_path / NAME.format(30)).mkdir()
    done = run("sweep", BASELINE, *given, "--top", "10,30")
    assert done.code == 2 and f"{NAME.format(30)} is there already" in done.err
