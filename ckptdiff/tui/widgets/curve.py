"""Curves and histograms from braille dots and eighths: numbers in, lines out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ckptdiff.tui.text import Line, fit

_AXIS = 8
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def curve(points: Sequence[tuple[float, float]], width: int, height: int) -> list[Line]:
    """A curve through (x, y), y on a logarithmic axis.

    `width` and `height` are columns and rows, labels of the axes included. Points that such an
    axis cannot show (zero, NaN, infinite) are left out, and the last line says how many.
    """
    rows, columns = height - 2, width - _AXIS - 1
    usable = [
        (x, math.log10(y)) for x, y in points if math.isfinite(x) and math.isfinite(y) and y > 0
    ]
    if rows < 2 or columns < 4:
        return []
    if not usable:
        return [[("no value that this axis can show", "dim")]]
    dots = _Dots(columns, rows)
    left, right = min(x for x, _ in usable), max(x for x, _ in usable)
    low, high = min(y for _, y in usable), max(y for _, y in usable)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0
    placed = [
        (
            round((x - left) / wide * (2 * columns - 1)),
            round((1 - (y - low) / tall) * (4 * rows - 1)),
        )
        for x, y in sorted(usable)
    ]
    for one, other in pairwise(placed):
        dots.line(one, other)
    if len(placed) == 1:
        dots.set(*placed[0])
    labels = {0: f"{10**high:.2g}", rows - 1: f"{10**low:.2g}"}
    lines: list[Line] = [
        [(fit(labels.get(row, ""), _AXIS, "right"), "dim"), ("│", "dim"), (text, "accent")]
        for row, text in enumerate(dots.text())
    ]
    ends = fit(f"{left:g}", columns // 2) + fit(f"{right:g}", columns - columns // 2, "right")
    lines.append([(" " * (_AXIS + 1), ""), (ends, "dim")])
    left_out = len(points) - len(usable)
    if left_out:
        lines.append([(f"{left_out} of {len(points)} points are 0 or not finite", "dim")])
    return lines


class _Dots:
    """A canvas of 2 x 4 dots a character."""

    def __init__(self, columns: int, rows: int) -> None:
        self._cells = [[0] * columns for _ in range(rows)]

    def set(self, x: int, y: int) -> None:
        self._cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]

    def line(self, start: tuple[int, int], stop: tuple[int, int]) -> None:
        steps = max(abs(stop[0] - start[0]), abs(stop[1] - start[1]), 1)
        for step in range(steps + 1):
            x = start[0] + (stop[0] - start[0]) * step / steps
            y = start[1] + (stop[1] - start[1]) * step / steps
            self.set(round(x), round(y))

    def text(self) -> list[str]:
        return ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in self._cells]


def bars(counts: Sequence[int], width: int, height: int) -> list[Line]:
    """Columns as high as `counts`, the highest `height` rows; neighbours share a column when
    there are more of them than columns."""
    if not counts or width < 1 or height < 1:
        return []
    per = math.ceil(len(counts) / width)
    grouped = [sum(counts[n : n + per]) for n in range(0, len(counts), per)]
    broad = max(1, min(3, width // len(grouped)))
    most = max(grouped) or 1
    lines: list[Line] = []
    for row in range(height):
        base = height - 1 - row
        text = ""
        for count in grouped:
            eighths = round(8 * height * count / most)
            eighths = max(eighths, 1) if count else 0  # something is never shown as nothing
            text += _EIGHTHS[min(8, max(0, eighths - 8 * base))] * broad
        lines.append([(text, "accent")])
    return lines
