"""Real ModelOpt exports of every format are healthy, and ckptdiff has to see them so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ckptdiff
from tests.exports import Cell, base_of, cells

CELLS = cells("ci")

pytestmark = pytest.mark.timeout(1500)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_healthy_export_is_clean(exports: dict[Cell, Path], cell: Cell) -> None:
    root = exports[cell]
    report = ckptdiff.check(root)
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report.verdict.status == "pass" and report.verdict.complete
    assert report.base is not None and report.base.id == "../base"
    assert len(report.schemes) == 2
    for row in report.schemes:
        assert row.declared is not None and row.actual is not None
        assert row.declared.selected == row.actual.quantized > 0
    half, whole = report.schemes
    assert half.actual.quantized < whole.actual.quantized == whole.actual.total  # type: ignore[union-attr]
    assert half.identity != whole.identity


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_copied_weights_are_found_in_every_format(
    exports: dict[Cell, Path], cell: Cell, tmp_path: Path
) -> None:
    root = tmp_path / "quantized"
    shutil.copytree(exports[cell], root)
    half, whole = sorted(root.iterdir(), key=lambda path: "top100" in path.name)
    for path in whole.glob("model*"):
        path.unlink()
    for path in half.glob("model*"):
        shutil.copy(path, whole)
    report = ckptdiff.check(root, base=base_of(exports[cell].parents[1], cell))
    assert sorted(f.code for f in report.findings if f.severity != "info") == ["CK301", "CK501"]
    assert report.verdict.safe == (half.name,)
    assert ckptdiff.exit_code(report) == 1
