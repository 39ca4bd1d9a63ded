"""The grid of modules x schemes: what each module is in each scheme, and what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ckptdiff.analysis.ordering import natural
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layers import Cell, LayerRow


def layer_rows(
    schemes: Sequence[SchemeEvidence], *, pattern: str | None = None, mismatches: bool = False
) -> tuple[LayerRow, ...]:
    """One row for each module that could be quantized in any scheme, in natural order.

    `pattern` keeps modules whose key or name on disk matches it; `mismatches` keeps rows
    with a cell that disagrees with its manifest.
    """
    names: dict[str, str] = {}
    for scheme in schemes:
        for key in scheme.coverage.scope | (scheme.coverage.selected or frozenset()):
            names.setdefault(key, scheme.coverage.modules[key].name)
    rows = (
        LayerRow(name, tuple(_cell(scheme, key) for scheme in schemes))
        for key, name in sorted(names.items(), key=lambda item: natural(item[1]))
        if pattern is None or fnmatchcase(key, pattern) or fnmatchcase(name, pattern)
    )
    return tuple(row for row in rows if not mismatches or disagrees(row))


def disagrees(row: LayerRow) -> bool:
    return any(cell.agrees is False for cell in row.cells)


def _cell(scheme: SchemeEvidence, key: str) -> Cell:
    module = scheme.coverage.modules.get(key)
    selected = scheme.coverage.selected
    wanted = None if selected is None else key in selected
    if module is None:
        return Cell(None, False, wanted, None)
    agrees = None if wanted is None else wanted == module.quantized
    return Cell(module.dtype, module.quantized, wanted, agrees)
