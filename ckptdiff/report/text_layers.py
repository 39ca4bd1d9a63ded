"""`ckptdiff layers` as text: the grid of modules x schemes."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.layers import Cell, LayersReport
from ckptdiff.records.wording import plural
from ckptdiff.report.escape import fit, printable, width
from ckptdiff.report.lines import COLUMNS, unread_lines, wrap
from ckptdiff.report.style import paint

# What fits into a cell, and is what people call the dtypes.
_SHORT = {"F8_E4M3": "FP8", "F8_E5M2": "E5M2", "U8": "4bit", "I8": "INT8", "I32": "4bit"}
_CELL = 6


def layers_text(report: LayersReport, *, color: bool = False) -> str:
    """The grid, as many schemes side by side as fit; a cell that its manifest contradicts is
    marked by `!`."""
    return "\n".join(_lines(report, color)) + "\n"


def _lines(report: LayersReport, color: bool) -> Iterator[str]:
    count, schemes = plural(len(report.modules), "module"), plural(len(report.schemes), "scheme")
    yield f"{count}, {schemes}, {report.mismatches:,} cells that a manifest contradicts"
    yield ""
    for number, scheme in enumerate(report.schemes, 1):
        yield from wrap(f"{number:>3} {scheme}", "", "    ")
    widest = max((width(printable(row.module)) for row in report.modules), default=8)
    per_block = max(1, min(len(report.schemes), (COLUMNS - 24) // _CELL))
    room = max(12, min(widest, COLUMNS - per_block * _CELL))
    for start in range(0, len(report.schemes), per_block):
        numbers = range(start, min(start + per_block, len(report.schemes)))
        yield ""
        head = "".join(f"{n + 1:>{_CELL}}" for n in numbers)
        yield paint(fit("module", room) + head, "dim", color)
        for row in report.modules:
            cells = "".join(_cell(row.cells[n], color) for n in numbers)
            yield (fit(row.module, room) + cells).rstrip()
    yield from unread_lines(report.unread, color)


def _cell(cell: Cell, color: bool) -> str:
    text = "-" if cell.dtype is None else _SHORT.get(cell.dtype, cell.dtype)
    if cell.agrees is False:
        return paint(f"{'!' + text:>{_CELL}}", "error", color)
    return f"{text:>{_CELL}}"
