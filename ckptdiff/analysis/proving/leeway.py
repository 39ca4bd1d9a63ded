"""What a scale may be, if codes are right: how far base's values let each one move.

A code says between which two multiples of its scale the value lay that was rounded. All codes
under one scale together leave that scale a narrow interval, or none at all. So codes speak of
the factors that base was smoothed by without believing the scales on disk, and of the scales
without a closed form for them. What is made of it is decided elsewhere.

Roundings before the one to the format blur what is known. Counted in ModelOpt 0.47, each to the
host's dtype and so off by a unit roundoff at most, 2^-9 in BF16: of base's weight, of its product
with the inverse factor, of a row times the factor of the layer behind, of the factor that is
taken back when a group gets the mean of theirs, of what that gives, of base's norm, and of the
norm times the mean. `BLUR` has these seven and one for their products. F16 and F32 have less,
except that below 2^-14 what F16 is off by is no smaller for smaller values: `GRAIN` is eight
times that. A flip that moves a value across a border which is that near is not to be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant.arrays import F32, Array, Rows, Scales
from ckptdiff.quant.registry import CODINGS, dequantise
from ckptdiff.records.layout import LayoutName

Axis = Literal["rows", "columns"]

BLUR = np.float32(8 * 2.0**-9)
"""How far what the exporter rounded may be from what is known of it, relatively. Measured on
exports: 2^-6.49 with BF16, 2^-9.8 with others."""
GRAIN = np.float32(8 * 2.0**-25)
"""The same absolutely."""
LEAN = 2.0**-7
"""How far all values together may be from what is known of them, relatively: four roundings, of
factors of whole columns. Those of values go either way. Measured on exports: 2^-10."""

# What makes a code of each layout stand for its scale alone, and the largest integer.
_ONES: Mapping[LayoutName, tuple[int, float]] = MappingProxyType(
    {
        "int8": (1, 127),
        "int4": (0x11, 7),
        "int4-fp8": (0x11, 7),
        "nvfp4": (0x22, 6),
        "nvfp4-32": (0x22, 6),
    }
)
_INFINITE = np.float32(np.inf)
_WIDTHS: Mapping[LayoutName, int] = MappingProxyType({"nvfp4": 16, "nvfp4-32": 32})


@dataclass(frozen=True, slots=True)
class Quantized:
    """Stored codes and the base's weight [O, I]; `scales` are without a factor for columns. Of
    the columns `blind` [n] nothing is known: they take no part."""

    layout: LayoutName
    stored: Rows
    scales: Scales
    base: Rows
    blind: NDArray[np.intp]

    def chunks(self) -> Iterator[tuple[int, Array, F32, F32]]:
        """(first stored row, codes, their values, base's values) of a few rows at a time."""
        coding = CODINGS[self.layout]
        for start, codes in self.stored.chunks(coding.rows * coding.columns):
            values = dequantise(self.layout, codes, self.scales, start)
            first = start * coding.rows
            wanted = self.base.read(first, first + len(values)).astype(np.float32)
            values[:, self.blind] = wanted[:, self.blind] = 0
            yield start, codes, values, wanted

    @property
    def whole(self) -> Array | None:
        """The scale of the whole tensor, where its values depend on one."""
        return self.scales.weight_scale_2 if self.layout.startswith("nvfp4") else None

    @property
    def width(self) -> int:
        """How many columns have one scale."""
        scale, columns = self.scales.weight_scale, self.base.columns
        groups = scale.shape[1] if scale.ndim == 2 else 1
        return _WIDTHS.get(self.layout) or max(1, columns // max(1, groups))


@dataclass(frozen=True, slots=True)
class Borders:
    """From where to where, by size, lies what is rounded to each value [R, I]. What an exporter
    cut off may be any size."""

    floor: F32
    ceiling: F32


def spaced(layout: LayoutName) -> bool:
    """Whether it is known here how far apart the values of a layout are."""
    return layout in _ONES


def borders(weight: Quantized, start: int, codes: Array, values: F32) -> Borders:
    """Of the `values` [R, I] of stored rows from `start` on, in a layout that is `spaced`."""
    one, most = _ONES[weight.layout]
    step = np.abs(dequantise(weight.layout, np.full_like(codes, one), weight.scales, start))
    with np.errstate(all="ignore"):
        if weight.layout.startswith("nvfp4"):
            floor, ceiling = _looked_up(_FLOORS, codes), _looked_up(_CEILINGS, codes)
            floor *= step
            ceiling *= step
        else:
            half, size = np.float32(0.5) * step, np.abs(values)
            floor = np.asarray(np.maximum(size - half, 0))
            ceiling = np.where(size > step * np.float32(most - 0.1), _INFINITE, size + half)
    floor[:, weight.blind], ceiling[:, weight.blind] = 0, np.inf
    return Borders(floor, ceiling)


def _pairs(*sizes: float) -> NDArray[np.uint64]:
    """A table of the sizes of both E2M1 codes of a byte, the low nibble first."""
    of_code, byte = np.array(sizes, np.float32), np.arange(256)
    return np.stack([of_code[byte & 7], of_code[byte >> 4 & 7]], axis=1).view(np.uint64)[:, 0]


# Of 0, .5, 1, 1.5, 2, 3, 4, 6.
_FLOORS = _pairs(0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5)
_CEILINGS = _pairs(0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, np.inf)


def _looked_up(table: NDArray[np.uint64], codes: Array) -> F32:
    out = np.empty(codes.shape, np.uint64)
    # Without a mode of its own, take() copies `out` first.
    np.take(table, codes, out=out, mode="clip")
    return out.view(np.float32)


@dataclass(frozen=True, slots=True)
class Beyond:
    """How many of some values are nearer to zero than the borders of their codes, how many
    farther, and which, in their order, no rounding of them gives, nor of anything that is as
    near to them as an exporter's is."""

    below: int
    above: int
    strays: NDArray[np.intp]


def beyond(values: F32, wanted: F32, limits: Borders) -> Beyond:
    """Where `wanted` [R, I] lies beyond the borders of what was made of it."""
    size = np.abs(wanted)
    below, above = size < limits.floor, size > limits.ceiling
    opposed = values * wanted < 0
    # What is exactly within its borders is so by any measure: that is nearly all.
    at = np.flatnonzero(below | above | opposed)
    near = size.reshape(-1)[at]
    off = near * (1 + BLUR) + GRAIN < limits.floor.reshape(-1)[at]
    off |= near * (1 - BLUR) - GRAIN > limits.ceiling.reshape(-1)[at]
    off |= opposed.reshape(-1)[at] & (near > GRAIN)
    return Beyond(int(np.count_nonzero(below)), int(np.count_nonzero(above)), at[off])


@dataclass(frozen=True, slots=True)
class Reach:
    """What the scale of a whole tensor may be multiplied by, for all that its codes say: `low` to
    `high`. `along` is the geometric mean of its lines' factors, where those lie nowhere."""

    low: float
    high: float
    along: float | None = None


ANYTHING = Reach(0.0, math.inf)


@dataclass(frozen=True, slots=True)
class Leeway:
    """The factors from `low` to `high` that each of some scales may be multiplied by so that all
    its codes are base's; none where `low` is above `high`."""

    low: F32
    high: F32

    @property
    def explained(self) -> NDArray[np.bool_]:
        """Where some factor gives all codes."""
        return np.asarray(self.low <= self.high)

    @property
    def common(self) -> float:
        """A factor that is good for as many as any."""
        lows, highs = np.sort(self.low, axis=None), np.sort(self.high, axis=None)
        lows = lows[np.isfinite(lows)]
        if not lows.size:
            return 1.0
        good = np.searchsorted(lows, lows, "right") - np.searchsorted(highs, lows, "left")
        return float(lows[good.argmax()])

    @property
    def middle(self) -> float:
        """The factor in the middle of where each is by itself, 1 where nothing tells. Far nearer
        to the one that is right than `BLUR`: roundings of many values go either way."""
        told = (self.low > 0) & (self.high < _INFINITE) & self.explained
        middles = np.sqrt(self.low[told].astype(np.float64) * self.high[told])
        return float(np.median(middles)) if middles.size else 1.0

    @property
    def mean(self) -> float | None:
        """The geometric mean of the factors in the middle of each; None where one has none."""
        if not np.all((self.low > 0) & (self.high < _INFINITE)):
            return None
        low, high = (np.log(side, dtype=np.float64) for side in (self.low, self.high))
        return math.exp(float(low.mean() + high.mean()) / 2)

    @property
    def extremes(self) -> tuple[float, float]:
        """From where to where the geometric mean of the smallest and the largest may be."""
        low, high = (side.astype(np.float64) for side in (np.maximum(self.low, 0), self.high))
        return math.sqrt(low.min() * low.max()), math.sqrt(high.min() * high.max())

    def without(self, factor: float) -> NDArray[np.bool_]:
        """For which `factor` is not good."""
        return np.asarray(~((self.low <= factor) & (self.high >= factor)))


def of_scales(weight: Quantized, factor: F32 | None) -> Leeway:
    """The leeway of every scale [O, groups], for base over `factor` [I]."""
    starts = np.arange(0, weight.base.columns, weight.width)
    parts = [
        (np.maximum.reduceat(low, starts, axis=1), np.minimum.reduceat(high, starts, axis=1))
        for _, low, high in _bounds(weight, factor)
    ]
    return Leeway(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def of_lines(weight: Quantized, factor: F32 | None, axis: Axis) -> Leeway:
    """The leeway of all codes of each row [O] together, or of each column [I]."""
    if axis == "rows":
        parts = [(low.max(axis=1), high.min(axis=1)) for _, low, high in _bounds(weight, factor)]
        return Leeway(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    low, high = np.zeros(weight.base.columns, np.float32), np.full(weight.base.columns, _INFINITE)
    for _, lows, highs in _bounds(weight, factor):
        low = np.maximum(low, lows.max(axis=0))
        high = np.minimum(high, highs.min(axis=0))
    return Leeway(low, high)


def of_codes(weight: Quantized, factor: F32 | None, axis: Axis, line: int) -> Leeway:
    """What each code by itself lets its scale be, of one row [I] or column [O]."""
    parts = []
    for first, low, high in _bounds(weight, factor):
        if axis == "columns":
            parts.append((low[:, line], high[:, line]))
        elif first <= line < first + len(low):
            parts.append((low[line - first], high[line - first]))
    return Leeway(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def _bounds(weight: Quantized, factor: F32 | None) -> Iterator[tuple[int, F32, F32]]:
    """(first row, low [R, I], high [R, I]): what each code by itself lets its scale be. `high` is
    infinite for a code of zero."""
    rows = CODINGS[weight.layout].rows
    for start, codes, values, wanted in weight.chunks():
        limits = borders(weight, start, codes, values)
        with np.errstate(all="ignore"):
            if factor is not None:
                wanted /= factor
            opposed = (values * wanted < 0) & (np.abs(wanted) > GRAIN)
            size = np.abs(wanted, out=wanted)
            low = np.divide(size * (1 - BLUR) - GRAIN, limits.ceiling, out=limits.ceiling)
            high = np.divide(size * (1 + BLUR) + GRAIN, limits.floor, out=limits.floor)
        low[opposed] = np.inf
        yield start * rows, low, high
