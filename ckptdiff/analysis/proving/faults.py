"""What is wrong with a weight whose scales were searched: its codes, or a scale.

Nothing is a fault here unless it is known what base was smoothed by. A factor that lies beside
the weight is. One that was read off a norm is when codes agree with it, whatever their scales:
under another factor hardly a block has a scale that gives all its codes. Where a factor of each
row or column lies nowhere, because AWQ moved it to a neighbour, one that goes with all the codes
must exist.

The scale of a whole tensor is told from a wrong one by values as they lie within their codes:
all of them lean to one side. That shows from 1 % on (`LEAN` and what a middle is off by). Where
factors lie nowhere, they would have another geometric mean of the largest and the smallest: that
shows from 2.5 % on, unless a row or column is all zeros; `agreement` has what neighbours say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptdiff.analysis.proving.leeway import (
    ANYTHING,
    LEAN,
    Axis,
    Leeway,
    Quantized,
    Reach,
    of_codes,
    of_lines,
    of_scales,
)
from ckptdiff.quant.arrays import F32, Array, scalar
from ckptdiff.quant.registry import CODINGS, dequantise
from ckptdiff.quant.tables import E4M3, decode
from ckptdiff.records.layout import Suffix

# The share of blocks that must have a scale under the factor they were smoothed by. Measured on
# exports: 1, and under any other 0.002 at most.
_FEWEST_EXPLAINED = 0.95
# The share of strays up to which a factor that was read off a norm is the one at once.
_MOST_STRAYS = 0.05
# The factor that is moved to a neighbour is rounded to the host's dtype there.
_MOVED = 1 + 2.0**-9


@dataclass(frozen=True, slots=True)
class Strays:
    """Values that rounding base's to a neighbour in the format cannot have given: how many (at
    least, where factors are known by codes alone), and of the first its [row, column], what was
    to be rounded there and what is there."""

    count: int
    first: tuple[int, int]
    wanted: float
    actual: float


@dataclass(frozen=True, slots=True)
class StaleScales:
    """Scales that are not those of their codes, which are base's under others: how many (at
    least) of how many, of the first its index, from where to where it may be, and what it is.
    `suffix` names the tensor."""

    suffix: Suffix
    count: int
    total: int
    first: tuple[int, ...]
    low: float
    high: float
    actual: float


Fault = Strays | StaleScales
LEANING = Reach(1 / (1 + LEAN), 1 + LEAN)
"""Of a scale under which codes lie around base's values."""


def fault_under(
    weight: Quantized, tried: Sequence[tuple[F32, Strays | None]], sure: bool
) -> tuple[Fault | None, Reach]:
    """What is wrong with a weight that base over one of some factors [I] was rounded to, and
    what codes say of the scale of the whole.

    `tried` has them with the strays under each; `sure`: there is no other.
    """
    found = [of_scales(weight, factor) for factor, _ in tried]
    at = max(range(len(tried)), key=lambda number: _share(found[number]))
    best, seen = found[at], tried[at][1]
    few = seen is None or seen.count <= _MOST_STRAYS * weight.base.count * weight.base.columns
    if not (sure or few or _share(best) >= _FEWEST_EXPLAINED):
        return None, ANYTHING
    if weight.whole is not None and (stale := _stale_whole(weight.whole, best)):
        return stale, ANYTHING
    if seen is None:
        return None, LEANING
    wrong = best.without(1)
    # One code that moved may leave its block a scale. Of two, a scale is the shorter story.
    if not best.explained[wrong].all() or not 0 < np.count_nonzero(wrong) < seen.count:
        return seen, ANYTHING
    row, block = (int(at) for at in np.argwhere(wrong)[0])
    return _stale(weight, best, int(np.count_nonzero(wrong)), (row, block), 1), ANYTHING


def fault_along(
    weight: Quantized, factors: Sequence[F32 | None], axis: Axis, sure: bool
) -> tuple[Fault | None, Reach]:
    """The same where every row or column has got a further factor, of which nothing is known but
    that it is one for all in it, and that the largest is the inverse of the smallest: so AWQ
    makes them. `factors`, the nearest first, may be none; `sure`: there is no other."""
    if axis == "columns":  # what they were smoothed by is part of that factor
        factors = [None]
    lines = of_lines(weight, factors[0], axis)
    if lines.explained.all():
        return _around_one(weight, lines)
    if axis == "columns":
        return _odd(weight, None, axis, lines), ANYTHING
    found = [of_scales(weight, factor) for factor in factors]
    at = max(range(len(found)), key=lambda number: _share(found[number]))
    best = found[at]
    lines = Leeway(best.low.max(axis=1), best.high.min(axis=1))
    if lines.explained.all():
        return _around_one(weight, lines)
    if not sure and _share(best) < _FEWEST_EXPLAINED:
        return None, ANYTHING
    odd = _odd(weight, factors[at], axis, lines)
    row = odd.first[0]
    blocks, codes = Leeway(best.low[row], best.high[row]), of_codes(weight, factors[at], axis, row)
    wrong, moved = blocks.without(blocks.common), codes.without(codes.common)
    if not blocks.explained.all() or np.count_nonzero(wrong) >= np.count_nonzero(moved):
        return odd, ANYTHING
    return _stale(weight, best, odd.count, (row, int(wrong.argmax())), blocks.common), ANYTHING


def _share(found: Leeway) -> float:
    return float(found.explained.mean())


def _odd(weight: Quantized, factor: F32 | None, axis: Axis, lines: Leeway) -> Strays:
    """Of the first row or column whose codes have no factor in common, the first without it."""
    bad = np.flatnonzero(~lines.explained)
    line = int(bad[0])
    codes = of_codes(weight, factor, axis, line)
    other = int(codes.without(codes.common).argmax())
    row, column = (line, other) if axis == "rows" else (other, line)
    wanted = weight.base.read(row, row + 1).astype(np.float32)[0, column]
    with np.errstate(all="ignore"):
        wanted = wanted / codes.common / (1 if factor is None else factor[column])
    return Strays(bad.size, (row, column), float(wanted), _value(weight, row, column))


def _value(weight: Quantized, row: int, column: int) -> float:
    start, within = divmod(row, CODINGS[weight.layout].rows)
    codes = weight.stored.read(start, start + 1)
    return float(dequantise(weight.layout, codes, weight.scales, start)[within, column])


def _stale(
    weight: Quantized, found: Leeway, count: int, first: tuple[int, int], common: float
) -> StaleScales:
    """`common` is what all scales of that row may be multiplied by without being wrong."""
    stored = weight.scales.weight_scale
    values = decode(E4M3, stored) if stored.dtype == np.uint8 else stored
    value = float(values.reshape(found.low.shape)[first])
    low, high = (float(side[first]) / common * value for side in (found.low, found.high))
    return StaleScales("weight_scale", count, stored.size, first[: stored.ndim], low, high, value)


def _stale_whole(stored: Array, found: Leeway) -> StaleScales | None:
    """Where one factor makes the scales right, and that is not 1, the scale of the whole is
    wrong. A few that have been tampered with themselves change nothing about it."""
    factor = found.middle
    good = 1 - found.without(factor).mean()
    if LEANING.low <= factor <= LEANING.high or good < _FEWEST_EXPLAINED:
        return None
    return _whole(stored, factor * LEANING.low, factor * LEANING.high)


def _around_one(weight: Quantized, lines: Leeway) -> tuple[Fault | None, Reach]:
    """What the factors of all lines say of the scale of the whole."""
    low, high = lines.extremes
    reach = Reach(low / _MOVED, high * _MOVED, lines.mean)
    if weight.whole is None or reach.low <= 1 <= reach.high:
        return None, reach
    return _whole(weight.whole, reach.low, reach.high), ANYTHING


def _whole(stored: Array, low: float, high: float) -> StaleScales:
    """The scale of the whole is wrong: it may be multiplied by `low` to `high`."""
    value = float(scalar(stored))
    return StaleScales("weight_scale_2", 1, 1, (0,) * stored.ndim, low * value, high * value, value)
