"""Declared against actual coverage, scheme by scheme: a staircase over columns.

The line is what manifests declare, the columns are what lies on disk. In a healthy sweep the
columns stand under the stairs; when one set of weights has ten names, they are a plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptdiff.tui.text import Line, Piece, fit

_AXIS = 5
_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Step:
    """One scheme: its short name, its shares (0 to 1, None: unknown), and whether they agree."""

    name: str
    declared: float | None
    actual: float | None
    agrees: bool


def staircase(steps: Sequence[Step], width: int, height: int) -> list[Line]:
    """The chart in `width` columns and `height` rows, names and legend included."""
    rows = height - 2
    room = width - _AXIS
    if not steps or rows < 2 or room < len(steps[:1]):
        return []
    slot = min(12, max(1, room // len(steps)))
    shown = steps[: room // slot]
    lines: list[Line] = []
    levels = [_row(step.declared, rows) for step in shown]
    for row in range(rows):
        line: list[Piece] = [(_axis(row, rows), "dim")]
        for n, step in enumerate(shown):
            gap = 1 if slot > 1 else 0
            line.append(_cell(step, row, rows, levels[n], slot - gap))
            if gap:
                after = levels[n + 1] if n + 1 < len(levels) else None
                line.append((_riser(levels[n], after, row), "accent"))
        lines.append(line)
    lines.append([(" " * _AXIS, ""), *_names(shown, slot, len(steps))])
    lines.append([("━", "accent"), (" declared  ", "dim"), ("█", "ok"), (" on disk  ", "dim"),
                  ("█", "error"), (" differs", "dim")])  # fmt: skip
    return lines


def _axis(row: int, rows: int) -> str:
    marks = {0: "100 %", rows - 1: "  0 %"}
    if rows > 4:
        marks[(rows - 1) // 2] = " 50 %" if rows % 2 else "     "
    return f"{marks.get(row, ''):>5}"


def _row(share: float | None, rows: int) -> int | None:
    """The row that a share's line is drawn in, from the top."""
    return None if share is None else round((1 - min(1.0, max(0.0, share))) * (rows - 1))


def _cell(step: Step, row: int, rows: int, level: int | None, width: int) -> Piece:
    if row == level:
        return "━" * width, "accent"
    tone = "ok" if step.agrees else "error"
    if step.actual is None:
        return ("?" if row == rows - 1 else " ") * width, "warning"
    # Row rows-1 is 0 %: a column reaches up to the row in which its line would be drawn.
    filled = min(1.0, max(0.0, step.actual)) * (rows - 1) - (rows - 1 - row) + 0.5
    return _EIGHTHS[min(8, max(0, round(filled * 8)))] * width, tone


def _riser(here: int | None, after: int | None, row: int) -> str:
    """What connects two steps in the column between them."""
    if here is None or after is None:
        return "━" if row == here else " "
    if here == after:
        return "━" if row == here else " "
    upper, lower = min(here, after), max(here, after)
    if row == upper:
        return "┏" if after == upper else "┓"
    if row == lower:
        return "┛" if here == lower else "┗"
    return "┃" if upper < row < lower else " "


def _names(shown: Sequence[Step], slot: int, total: int) -> Line:
    """Names under their columns where they fit, else the first and the last one."""
    if slot >= 4 and all(len(step.name) < slot for step in shown):
        return [(fit(step.name, slot), "error" if not step.agrees else "") for step in shown]
    room = slot * len(shown)
    if room < 8 or len(shown) < 2:
        return [(fit(shown[0].name, room), "")]
    last = shown[-1].name if len(shown) == total else f"… {total - len(shown)} more"
    return [(fit(shown[0].name, room // 2), ""), (fit(last, room - room // 2, "right"), "")]
