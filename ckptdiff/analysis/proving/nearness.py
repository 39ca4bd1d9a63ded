"""How near a quantized weight is to its base, where no closed form says what it must be.

Compared is what the exporter rounded: where columns were smoothed before that, base's are too.
Afterwards, on the way back to the weight itself, the error of a column that was divided by a
thousand is multiplied by it, and says nothing of whether the export is sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptdiff.analysis.codes import at_their_extreme
from ckptdiff.analysis.proving.faults import LEANING, Fault, Strays, fault_along, fault_under
from ckptdiff.analysis.proving.leeway import (
    ANYTHING,
    Axis,
    Borders,
    Quantized,
    Reach,
    beyond,
    borders,
    spaced,
)
from ckptdiff.quant.arrays import F32, Array, MisfitError, Rows, Scales
from ckptdiff.quant.registry import CODINGS
from ckptdiff.records.layout import LayoutName

# The share of values beyond the borders of their codes from which on it counts that most are
# beyond the same one. Measured on exports: 0.007 at most; under a scale 1 % off 0.017 and more.
_FEWEST_BEYOND = 0.001


@dataclass(frozen=True, slots=True)
class Nearness:
    """`sqnr_db` is 10 log10(|W|^2 / |error|^2), infinite for no error and None for a base of
    zeros; `saturated` the share of codes at their extreme; `zero`: every value is zero, and
    base's are not. `fault`: None where there is none, or nobody knows what was rounded; `reach`
    is then what is known of the scale of the whole."""

    sqnr_db: float | None
    saturated: float
    zero: bool
    fault: Fault | None = None
    reach: Reach = ANYTHING


def measure(
    layout: LayoutName,
    stored: Rows,
    scales: Scales,
    base: Rows,
    folds: Sequence[F32] = (),
    rescaled: Axis | None = None,
    *,
    folded: bool = False,
) -> Nearness:
    """Dequantised values against base [O, I], in flat memory: in one pass, if there is no sign of
    a fault and all factors are known.

    A `pre_quant_scale` [I] divides base. So may one of `folds` [I], if it was put elsewhere:
    the one that brings both nearest counts, or none; with `folded` there is no other, and it
    counts. With `rescaled`, every row or column may have got a factor that nothing on disk tells,
    as AWQ chooses them: around 1, that is the largest is the inverse of the smallest. Columns
    that are NaN in one of `folds` are left out.
    """
    plain = replace(scales, pre_quant_scale=None)
    blind = np.flatnonzero(np.isnan(folds).any(axis=0)) if folds else np.empty(0, np.intp)
    weight = Quantized(layout, stored, plain, base, blind)
    moments = [_Moments(factor, rescaled) for factor in _factors(scales, base.columns, folds)]
    moments = moments[1:] if folded else moments
    smooths = any(sums.factor is not None for sums in moments)
    looks = spaced(layout) and smooths and rescaled is None
    extreme, zero, live = 0, True, False
    for start, codes, values, wanted in weight.chunks():
        limits = borders(weight, start, codes, values) if looks else None
        for sums in moments:
            sums.add(values, wanted, limits, start * CODINGS[layout].rows)
        extreme += at_their_extreme(layout, codes)
        zero = zero and not values.any()
        live = live or bool(wanted.any())
    moments.sort(key=lambda sums: sums.decibels, reverse=True)
    found = Nearness(
        sqnr_db=moments[0].decibels if live else None,
        saturated=extreme / max(1, elements(stored, layout)),
        zero=zero and live,
    )
    if not live or not spaced(layout) or not (looks or rescaled):
        return found
    if rescaled:
        factors = [sums.factor for sums in moments]
        fault, reach = fault_along(weight, factors, rescaled, folded)
        return replace(found, fault=fault, reach=reach)
    if moments[0].strays is None and not (weight.whole is not None and moments[0].leans):
        return replace(found, reach=LEANING)
    tried = [(sums.factor, sums.strays) for sums in moments if sums.factor is not None]
    sure = folded or scales.pre_quant_scale is not None
    fault, reach = fault_under(weight, tried, sure)
    return replace(found, fault=fault, reach=reach)


def elements(stored: Rows, layout: LayoutName) -> int:
    """How many weights some stored rows hold."""
    coding = CODINGS[layout]
    return stored.count * coding.rows * stored.columns * coding.columns


class _Moments:
    """What is needed to tell how far values are from base's over `factor`, with and without a
    further factor for each row or column."""

    def __init__(self, factor: F32 | None, rescaled: Axis | None) -> None:
        self.factor, self._rescaled = factor, rescaled
        self._power = self._error = 0.0
        self._products: list[Array] = []  # [3, rows], or [3, I] for columns
        self.strays: Strays | None = None
        self._count = self._below = self._above = 0

    def add(self, values: F32, base: F32, limits: Borders | None, row: int) -> None:
        """Rows from `row` on; with `limits` strays are looked for among them."""
        with np.errstate(all="ignore"):
            wanted = base if self.factor is None else base / self.factor
            error = values - wanted
            self._error += float(np.vdot(error, error))
            self._power += float(np.vdot(wanted, wanted))
            if self._rescaled is not None:
                self._multiply(values, wanted, axis=1 if self._rescaled == "rows" else 0)
            if limits is not None:
                self._look(values, wanted, limits, row)

    def _look(self, values: F32, wanted: F32, limits: Borders, row: int) -> None:
        found = beyond(values, wanted, limits)
        self._count += values.size
        self._below += found.below
        self._above += found.above
        if count := found.strays.size:
            at, column = divmod(int(found.strays[0]), values.shape[1])
            here = Strays(
                count, (row + at, column), float(wanted[at, column]), float(values[at, column])
            )
            self.strays = (
                replace(self.strays, count=self.strays.count + count) if self.strays else here
            )

    @property
    def leans(self) -> bool:
        """Whether of the values beyond a border of their codes, by whatever, most are beyond the
        same one. As many are beyond either where nothing but roundings brought them there."""
        count = self._below + self._above
        one_sided = 2 * abs(self._below - self._above) > count
        return one_sided and count > _FEWEST_BEYOND * self._count

    def _multiply(self, values: F32, wanted: F32, axis: int) -> None:
        pairs = ((values, values), (values, wanted), (wanted, wanted))
        found = np.array([np.sum(a * b, axis=axis, dtype=np.float64) for a, b in pairs])
        if axis == 0 and self._products:
            self._products[0] += found
        else:
            self._products.append(found)

    @property
    def decibels(self) -> float:
        return max(_decibels(*pair) for pair in self._pairs())

    def _pairs(self) -> Iterator[tuple[float, float]]:
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


def _factors(scales: Scales, columns: int, folds: Sequence[F32]) -> Iterator[F32 | None]:
    if scales.pre_quant_scale is None:
        yield None
        yield from (np.nan_to_num(fold, nan=1) for fold in folds)
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
