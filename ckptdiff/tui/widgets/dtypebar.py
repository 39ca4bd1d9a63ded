"""A stacked bar of dtypes: how the bytes of a checkpoint are stored, at a glance.

Every family of dtypes has a fill of its own, so that the bar reads without colour.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptdiff.tui.text import Line, shown

# What people call the dtypes; other names are shown as they are.
SHORT = {"F8_E4M3": "FP8", "F8_E5M2": "E5M2", "U8": "4bit", "I8": "INT8", "I32": "4bit"}
_TONES = {"FP8": "fp8", "E5M2": "fp8", "INT8": "int8", "4bit": "fourbit", "F4": "fourbit",
          "BF16": "half", "F16": "half", "F32": "full", "F64": "full"}  # fmt: skip
_FILLS = {"fp8": "█", "int8": "▓", "fourbit": "▒", "half": "░", "full": "=", "other": "?"}


def short_dtype(dtype: str) -> str:
    """What people call a dtype."""
    return SHORT.get(dtype, shown(dtype))


def dtype_tone(dtype: str) -> str:
    """The tone of a dtype: one for each family."""
    return _TONES.get(short_dtype(dtype), "other")


def dtype_bar(sizes: Mapping[str, int], width: int) -> Line:
    """The bar in exactly `width` columns; whatever has bytes has at least a column."""
    sizes = {dtype: size for dtype, size in sizes.items() if size > 0}
    if not sizes or width < 1:
        return [(" " * max(0, width), "")]
    order = sorted(sizes, key=lambda dtype: (-sizes[dtype], dtype))[:width]
    line = []
    for dtype, columns in zip(order, shares([sizes[d] for d in order], width), strict=True):
        tone = dtype_tone(dtype)
        line.append((_FILLS[tone] * columns, tone))
    return line


def dtype_legend(sizes: Mapping[str, int]) -> Line:
    """The same in words: fill, name and share of each dtype, the largest first."""
    total = sum(sizes.values())
    line = []
    for dtype in sorted(sizes, key=lambda dtype: (-sizes[dtype], dtype)):
        tone = dtype_tone(dtype)
        share = f"{100 * sizes[dtype] / total:.0f} %" if total else "0 %"
        line += [(_FILLS[tone] * 2, tone), (f" {short_dtype(dtype)} {share}  ", "")]
    return line


def shares(parts: list[int], width: int) -> list[int]:
    """`width` divided as `parts` are: at least 1 each, the largest remainders rounded up.

    >>> shares([999, 1, 1], 6)
    [4, 1, 1]
    """
    spare, total = width - len(parts), sum(parts)
    exact = [spare * part / total for part in parts]
    given = [int(share) for share in exact]
    behind = sorted(range(len(parts)), key=lambda n: (given[n] - exact[n], n))
    for n in behind[: spare - sum(given)]:
        given[n] += 1
    return [1 + columns for columns in given]
