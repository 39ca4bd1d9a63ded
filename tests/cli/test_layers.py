"""`ckptdiff layers`: the grid."""

from __future__ import annotations

from pathlib import Path

from build import SweepSpec, modules
from command import run

SPEC = SweepSpec()


def test_a_healthy_sweep_has_no_mismatch(sweep: Path) -> None:
    done = run("layers", sweep)
    assert done.code == 0
    assert done.text.startswith("28 modules, 4 schemes, 0 cells that a manifest contradicts\n")
    assert "!" not in done.text
    assert all(len(line) <= 80 for line in done.text.splitlines())


def test_the_founding_bug_cell_by_cell(bug: Path) -> None:
    document = run("layers", bug, "--json").report
    assert document["schema"] == "ckptdiff.layers/1"
    assert [row["module"] for row in document["modules"]] == sorted(
        modules(), key=lambda name: name
    )
    wrong = {
        (row["module"], scheme)
        for row in document["modules"]
        for scheme, cell in zip(document["schemes"], row["cells"], strict=True)
        if cell["agrees"] is False
    }
    # Everything is quantized everywhere; topN should be quantized in its selection alone.
    assert wrong == {
        (module, SPEC.scheme(percent))
        for percent in SPEC.percents
        for module in modules()
        if module not in SPEC.selected(percent)
    }
    assert document["mismatches"] == len(wrong)


def test_mismatches_and_a_pattern(bug: Path) -> None:
    done = run("layers", bug, "--modules", "*.0.mlp.*", "--mismatches", "--json")
    names = [row["module"] for row in done.report["modules"]]
    assert names == [f"model.layers.0.mlp.{leaf}_proj" for leaf in ("down", "gate", "up")]


def test_more_schemes_than_fit_side_by_side(tmp_path: Path) -> None:
    from build import write_sweep

    root = write_sweep(tmp_path, SweepSpec(percents=tuple(range(5, 101, 5))))
    done = run("layers", root)
    assert all(len(line) <= 80 for line in done.text.splitlines())
    assert done.text.count("model.layers.0.mlp.up_proj") == 3


def test_what_could_not_be_read_is_exit_2(sweep: Path) -> None:
    path = sweep / SPEC.scheme(30) / "model.safetensors"
    path.unlink()
    path.symlink_to(path.name)
    assert run("layers", sweep).code == 2
