"""How near a quantized weight is to its base, where no closed form says what it must be.

Compared is what the exporter rounded: where columns were smoothed before that, base's are too.
Afterwards, on the way back to the weight itself, the error of a column that was divided by a
thousand is multiplied by it, and says nothing of whether the export is sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ckptdiff.analysis.codes import at_their_extreme
from ckptdiff.quant.arrays import F32, Array, MisfitError, Rows, Scales
from ckptdiff.quant.registry import CODINGS, dequantise
from ckptdiff.records.layout import LayoutName

Axis = Literal["rows", "columns"]
# What makes a code of each layout stand for its scale alone, and its largest.
_ONES: Mapping[LayoutName, tuple[int, float]] = MappingProxyType(
    {
        "int8": (1, 127),
        "int4": (0x11, 7),
        "int4-fp8": (0x11, 7),
        "nvfp4": (0x22, 6),
        "nvfp4-32": (0x22, 6),
    }
)
# How far what the exporter rounded may be from what is known of it, relatively: base's cast, the
# smoothed weight and the factor were each rounded to 8 bits. Measured on exports: 2^-7.3.
_BLUR = np.float32(3 * 2.0**-8)
# The share of strays beyond which a factor that was read off a norm is not the one.
_MOST_STRAYS = 0.05


@dataclass(frozen=True, slots=True)
class Strays:
    """Values that rounding base's to a neighbour in the format cannot have given: how many, and
    of the first its [row, column], what was to be rounded there and what is there."""

    count: int
    first: tuple[int, int]
    wanted: float
    actual: float


@dataclass(frozen=True, slots=True)
class Nearness:
    """`sqnr_db` is 10 log10(|W|^2 / |error|^2), infinite for no error and None for a base of
    zeros; `saturated` the share of codes at their extreme; `zero`: every value is zero, and
    base's are not. `strays`: None where there are none, or nobody knows what was rounded."""

    sqnr_db: float | None
    saturated: float
    zero: bool
    strays: Strays | None = None


def measure(
    layout: LayoutName,
    stored: Rows,
    scales: Scales,
    base: Rows,
    folds: Sequence[F32] = (),
    rescaled: Axis | None = None,
) -> Nearness:
    """Dequantised values against base [O, I], in one pass and flat memory.

    A `pre_quant_scale` [I] divides base. So may one of `folds` [I], if it was put elsewhere:
    the one that brings both nearest counts, or none. With `rescaled`, every row or column may
    have got a factor that nothing on disk tells, as AWQ chooses them: around 1, that is the
    largest is the inverse of the smallest.
    """
    coding = CODINGS[layout]
    plain = replace(scales, pre_quant_scale=None)
    moments = [_Moments(factor, rescaled) for factor in _factors(scales, base.columns, folds)]
    known = rescaled is None and any(sums.smooths for sums in moments)
    extreme, zero, live = 0, True, False
    for start, codes in stored.chunks(coding.rows * coding.columns):
        values = dequantise(layout, codes, plain, start)
        first = start * coding.rows
        wanted = base.read(first, first + len(values)).astype(np.float32)
        spacing = _spacing(layout, codes, plain, start, values) if known else None
        for sums in moments:
            sums.add(values, wanted)
            if spacing is not None:
                sums.look(values, wanted, spacing, first)
        extreme += at_their_extreme(layout, codes)
        zero = zero and not values.any()
        live = live or bool(wanted.any())
    found = [pair for sums in moments for pair in sums.pairs()]
    return Nearness(
        sqnr_db=max((_decibels(*pair) for pair in found), default=None) if live else None,
        saturated=extreme / max(1, elements(stored, layout)),
        zero=zero and live,
        strays=_strays(moments, elements(stored, layout), scales) if known else None,
    )


def elements(stored: Rows, layout: LayoutName) -> int:
    """How many weights some stored rows hold."""
    coding = CODINGS[layout]
    return stored.count * coding.rows * stored.columns * coding.columns


class _Moments:
    """What is needed to tell how far values are from base's over `factor`, with and without a
    further factor for each row or column."""

    def __init__(self, factor: F32 | None, rescaled: Axis | None) -> None:
        self._factor, self._rescaled = factor, rescaled
        self._power = self._error = 0.0
        self._products: list[Array] = []  # [3, rows], or [3, I] for columns
        self.strays: Strays | None = None

    @property
    def smooths(self) -> bool:
        return self._factor is not None

    def add(self, values: F32, base: F32) -> None:
        with np.errstate(all="ignore"):
            wanted = base if self._factor is None else base / self._factor
            error = values - wanted
            self._error += float(np.vdot(error, error))
            self._power += float(np.vdot(wanted, wanted))
            if self._rescaled is not None:
                self._multiply(values, wanted, axis=1 if self._rescaled == "rows" else 0)

    def look(self, values: F32, base: F32, spacing: _Spacing, row: int) -> None:
        """Look for strays among rows from `row` on."""
        with np.errstate(all="ignore"):
            wanted = base if self._factor is None else base / self._factor
            off = np.abs(values - wanted) > spacing.half + np.abs(wanted) * _BLUR
            # What an exporter cut off may be any distance beyond.
            off &= ~(spacing.extreme & (np.abs(wanted) > np.abs(values)) & (wanted * values > 0))
        if count := int(np.count_nonzero(off)):
            at, column = divmod(int(off.argmax()), off.shape[1])
            here = Strays(
                count, (row + at, column), float(wanted[at, column]), float(values[at, column])
            )
            self.strays = (
                replace(self.strays, count=self.strays.count + count) if self.strays else here
            )

    def _multiply(self, values: F32, wanted: F32, axis: int) -> None:
        pairs = ((values, values), (values, wanted), (wanted, wanted))
        found = np.array([np.sum(a * b, axis=axis, dtype=np.float64) for a, b in pairs])
        if axis == 0 and self._products:
            self._products[0] += found
        else:
            self._products.append(found)

    def pairs(self) -> Iterator[tuple[float, float]]:
        """(power of what is wanted, of the error), as it is and with factors."""
        yield self._power, self._error
        if not self._products:
            return
        found, cross, power = np.concatenate(self._products, axis=1)
        live = power > 0
        with np.errstate(all="ignore"):
            gain = cross[live] / power[live]
            if gain.size and gain.min() > 0:
                gain /= math.sqrt(gain.max() * gain.min())
                wanted = gain**2 * power[live]
                error = found[live] - 2 * gain * cross[live] + wanted
                yield float(wanted.sum()), float(error.sum() + found[~live].sum())


@dataclass(frozen=True, slots=True)
class _Spacing:
    """Of each value, half the way to the furthest of its two neighbours in the format, and
    whether it has one neighbour only."""

    half: F32
    extreme: NDArray[np.bool_]


def _spacing(
    layout: LayoutName, codes: Array, scales: Scales, start: int, values: F32
) -> _Spacing | None:
    if layout not in _ONES:
        return None
    one, most = _ONES[layout]
    step = np.abs(dequantise(layout, np.full_like(codes, one), scales, start))
    with np.errstate(all="ignore"):
        size = np.abs(values) / step
    half = step * np.float32(0.5)
    if layout.startswith("nvfp4"):  # 0, .5, 1, 1.5, 2, 3, 4, 6
        half *= np.select([size < 1.9, size < 3.9], [np.float32(0.5), np.float32(1)], np.float32(2))
    return _Spacing(half, size > most - 0.1)


def _strays(moments: Sequence[_Moments], count: int, scales: Scales) -> Strays | None:
    """Those under the factor that brings both nearest, if the exporter is sure to have used it:
    it lies beside the weight, or most values agree with what was read off a norm."""
    best = max(moments, key=lambda sums: max(_decibels(*pair) for pair in sums.pairs()))
    if not best.smooths or best.strays is None:
        return None
    sure = scales.pre_quant_scale is not None or best.strays.count <= _MOST_STRAYS * count
    return best.strays if sure else None


def _factors(scales: Scales, columns: int, folds: Sequence[F32]) -> Iterator[F32 | None]:
    if scales.pre_quant_scale is None:
        yield None
        yield from folds
    elif scales.pre_quant_scale.size == columns:
        yield scales.pre_quant_scale.reshape(-1).astype(np.float32)
    else:
        shape = list(scales.pre_quant_scale.shape)
        raise MisfitError(f"pre_quant_scale of {shape} for {columns} columns")


def _decibels(power: float, error: float) -> float:
    # Scales may be so wrong that the error is not finite in float64 either.
    if not math.isfinite(error) or not power:
        return -math.inf
    return 10 * (math.log10(power) - math.log10(error)) if error > 0 else math.inf
