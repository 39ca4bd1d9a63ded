"""Difference statistics of values, chunk by chunk: sums that can be added up, then numbers.

A chunk is worked on in float32, and its sums are added up in float64, which leaves a relative
error of 1e-6: enough for everything but small differences of large sums. Where those matter
(`is_precise` says so), and where float32 overflows, underflows or meets what is not finite, the
same is done in float64. Where `onepass` is there, float64 costs nothing. Which tensors belong
together is decided elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ckptdiff.analysis.codes import bits
from ckptdiff.analysis.differing.onepass import OnePass, Passed
from ckptdiff.quant.arrays import F32, Array
from ckptdiff.records.delta import Number, Statistics

# Every operation of numpy gives up the interpreter's lock and asks for it again: in shorter
# chunks, two threads wait for each other longer than they work. No power of two: arrays whose
# addresses agree in their lower bits get in each other's way, and copying one to another takes
# ten times as long.
CHUNK = 500_000
# Longer products OpenBLAS shares out among threads of its own, which get in the way of ours and
# do not survive a fork; and their sums are taken in float32.
_BLOCK = 1 << 13
_LOWEST, _HIGHEST = -46, 39
# Lower edges of decades, rounded up to float32: no float32 lies between edge and number.
_EDGES = np.array([float(f"1e{k}") for k in range(_LOWEST, _HIGHEST)])
_EDGES_32 = _EDGES.astype(np.float32)
_EDGES_32 = np.where(
    _EDGES_32.astype(np.float64) < _EDGES,
    np.nextafter(_EDGES_32, np.float32(np.inf)),
    _EDGES_32,
)
# Squares of float32 within these neither overflow nor vanish in a sum.
_SMALL, _LARGE = 1e-12, 1e17
# |d|^2 over |x| |y| beyond which one length is a hundredth of the other, or less.
_APART = 200
# What the histogram may look at less closely: more errors than this in a chunk; then at every
# so many of them (or more often, to see as many), and at no further chunk while this share of
# them has been seen.
_FEW, _ENOUGH = 1 << 10, 0.1
# Primes, which divide hardly any row: else some columns would stand for all.
_STRIDES = (1, 11, 13, 17, 19, 23, 29, 37, 47, 59, 73, 89, 113, 139, 173, 211, 251)


@dataclass(slots=True)
class Sums:
    """What is known of some elements: x are A's values, y are B's, d = y - x.

    `elements` counts all, `nonfinite` those that are NaN or infinite in x or y and are in no
    sum. `first` is the flat index of the first element that differs. `decades` counts errors
    by decade: `seen` of them, and `unseen` more that are distributed alike. `touched`: not all
    stored bytes are equal, or what they stand for is not. `rounded`: sums of elements that differ
    were taken in float32.
    """

    elements: int = 0
    changed: int = 0
    nonfinite: int = 0
    saturated: int = 0
    first: int | None = None
    xx: float = 0.0
    xd: float = 0.0
    dd: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    size: float = 0.0
    top: float = 0.0
    decades: dict[int, float] = field(default_factory=dict)
    seen: int = 0
    unseen: int = 0
    touched: bool = False
    rounded: bool = False

    def add(self, other: Sums) -> None:
        """Take in the sums of other elements of the same tensor, or of another one."""
        self.elements += other.elements
        self._changed(other.changed, other.first)
        self.nonfinite += other.nonfinite
        self.saturated += other.saturated
        self.xx += other.xx
        self.xd += other.xd
        self.dd += other.dd
        self.yy += other.yy
        self.xy += other.xy
        self.size += other.size
        self.top = max(self.top, other.top)
        for decade, count in other.decades.items():
            self.decades[decade] = self.decades.get(decade, 0) + count
        self.seen += other.seen
        self.unseen += other.unseen
        self.touched |= other.touched
        self.rounded |= other.rounded

    def unchanged(self, x: Array) -> None:
        """Add a chunk that both sides share, byte for byte; `x` as for `take`.

        It has no part in any small difference, so that float32 is always good for it.
        """
        if x.dtype == np.float32:
            xx = _dot(x, x)
            if _SMALL**2 < xx < _LARGE**2 or not x.any():
                self._lengths(x.size, xx, 0.0, 0.0, xx, xx)
                return
        x = x.astype(np.float64)
        finite = np.isfinite(x)
        x[~finite] = 0
        xx = _dot(x, x)
        self._lengths(x.size, xx, 0.0, 0.0, xx, xx)
        self.nonfinite += x.size - int(np.count_nonzero(finite))

    def take(
        self,
        x: F32,
        y: F32,
        first: int,
        differs: NDArray[np.bool_] | None = None,
        sampled: bool = False,
    ) -> bool:
        """Add a chunk, in float32; `y` is written over. False when float32 will not do.

        `x` and `y` are contiguous and of one dimension, `first` is the flat index of their
        first element. `differs` says which elements count as changed; None: those with another
        value. `sampled`: not every error needs to be looked at for the histogram.
        """
        unequal = x != y if differs is None else differs
        d = np.subtract(y, x, out=y)
        dd, xd, xx = _dot(d, d), _dot(x, d), _dot(x, x)
        size = np.abs(d, out=d)
        top = float(size.max(initial=0.0))
        # NaN fails these comparisons too.
        if not (_SMALL**2 < xx < _LARGE**2 or (xx == 0 and not x.any())):
            return False
        if not (top == 0 or _SMALL < top < _LARGE):
            return False
        self._lengths(x.size, xx, xd, dd, xx + 2 * xd + dd, xx + xd)
        self.size += float(np.einsum("i->", size))
        self.top = max(self.top, top)
        self.rounded = True
        if changed := int(np.count_nonzero(unequal)):
            self._changed(changed, first + int(unequal.argmax()))
            if stride := self._stride(changed, sampled):
                self._sort(size[np.flatnonzero(unequal)[::stride]], changed, _EDGES_32)
        return True

    def take_at_once(
        self,
        one_pass: OnePass,
        x: Array,
        y: Array,
        first: int,
        bitwise: bool = False,
        sampled: bool = False,
    ) -> None:
        """As `take_exactly`, for float32 and in one pass; `bitwise`: an element counts as changed
        when its bits differ. BF16 too, as `one_pass` takes it."""
        found = Passed(*one_pass(x, y, bitwise))
        self._lengths(x.size, found.xx, found.xd, found.dd, found.yy, found.xy)
        self.nonfinite += found.nonfinite
        self.size += found.size
        self.top = max(self.top, float(np.int64(found.top).view(np.float64)))
        if not found.changed:
            return
        stride = self._stride(found.changed, sampled)
        if self.first is not None and self.first < first and not stride:
            self.changed += found.changed
            return
        if x.dtype != y.dtype:
            x = x.astype(y.dtype)
        unequal = bits(x) != bits(y) if bitwise else unequal_values(x, y)
        self._changed(found.changed, first + int(unequal.argmax()))
        if stride:
            where = np.flatnonzero(unequal)[::stride]
            size = np.abs(y[where].astype(np.float64) - x[where].astype(np.float64))
            size[~np.isfinite(size)] = 0
            self._sort(size, found.changed, _EDGES)

    def take_exactly(
        self,
        x: Array,
        y: Array,
        first: int,
        differs: NDArray[np.bool_] | None = None,
        sampled: bool = False,
    ) -> None:
        """As `take`, in float64 and for any values; NaN counts as equal to NaN."""
        x, y = widened(x, y)
        unequal = differs if differs is not None else unequal_values(x, y)
        finite = np.isfinite(x) & np.isfinite(y)
        if lost := x.size - int(np.count_nonzero(finite)):
            self.nonfinite += lost
            x[~finite] = 0
            y[~finite] = 0
        d = (y - x).astype(np.float64, copy=False)
        x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
        self._lengths(x.size, _dot(x, x), _dot(x, d), _dot(d, d), _dot(y, y), _dot(x, y))
        size = np.abs(d)
        self.size += float(size.sum())
        self.top = max(self.top, float(size.max(initial=0.0)))
        if changed := int(np.count_nonzero(unequal)):
            self._changed(changed, first + int(unequal.argmax()))
            if stride := self._stride(changed, sampled):
                self._sort(size[np.flatnonzero(unequal)[::stride]], changed, _EDGES)

    def histogram(self) -> dict[int, float]:
        """Errors by decade, all of them; the largest one is never missing."""
        share = 1 + self.unseen / self.seen if self.seen else 1.0
        found = {decade: count * share for decade, count in self.decades.items()}
        if self.top > 0:
            place = int(np.searchsorted(_EDGES, self.top, side="right")) - 1
            found.setdefault(_LOWEST + max(place, 0), 1.0)
        return found

    def _lengths(
        self, elements: int, xx: float, xd: float, dd: float, yy: float, xy: float
    ) -> None:
        self.elements += elements
        self.xx += xx
        self.xd += xd
        self.dd += dd
        self.yy += yy
        self.xy += xy

    def _changed(self, count: int, first: int | None) -> None:
        self.changed += count
        if first is not None and (self.first is None or first < self.first):
            self.first = first

    def _stride(self, changed: int, sampled: bool) -> int:
        """Of every how many of a chunk's changed elements the histogram sees one; 0: of none.

        Where many of a large tensor differ, some chunks stand for the others, and in those some
        errors for their neighbours."""
        if not sampled or changed <= _FEW:
            return 1
        if self.seen > _ENOUGH * (self.unseen + changed):
            self.unseen += changed
            return 0
        # Every so many of those that changed: of all elements they may be few.
        return _STRIDES[bisect_right(_STRIDES, changed // _FEW) - 1]

    def _sort(self, part: Array, changed: int, edges: Array) -> None:
        """The absolute errors of some of a chunk's changed elements into their decades."""
        scale = changed / part.size
        part = part[part > 0]
        places = np.searchsorted(edges, part, side="right") - 1
        counts: list[int] = np.bincount(np.maximum(places, 0)).tolist()
        for at, count in enumerate(counts):
            if count:
                decade = _LOWEST + at
                self.decades[decade] = self.decades.get(decade, 0) + scale * count
        self.seen += changed


def unequal_values(x: Array, y: Array) -> NDArray[np.bool_]:
    """Where two arrays differ, NaN being equal to NaN."""
    differs: NDArray[np.bool_] = (x != y) & ~(np.isnan(x) & np.isnan(y))
    return differs


def widened(x: Array, y: Array) -> tuple[Array, Array]:
    """Copies of both in a float that holds their values and differences: float64, and for
    integers of 64 bits, of which float64 makes one number beyond 2^53, long double."""
    wide = np.longdouble if np.dtype(np.int64) in (x.dtype, y.dtype) else np.float64
    return x.astype(wide), y.astype(wide)


def is_precise(sums: Sums) -> bool:
    """Whether the sums are good for the cosine distance: not those taken in float32 when the
    vectors are so nearly parallel that it is a small difference of large numbers."""
    if not sums.rounded or sums.dd == 0 or sums.xx == 0:
        return True
    return _across(sums) > 0.02 * sums.dd and sums.yy > 0.02 * sums.xx


def statistics(sums: Sums, shape: tuple[int, ...], packed: bool) -> Statistics:
    """The numbers for a tensor of `shape`; `packed`: B has codes that can be saturated."""
    count = sums.elements - sums.nonfinite
    first = None
    if sums.first is not None:
        first = tuple(int(i) for i in np.unravel_index(sums.first, shape)) if shape else ()
    return Statistics(
        max_abs=number(sums.top) if count else None,
        mean_abs=number(sums.size / count) if count else None,
        rms=number(math.sqrt(sums.dd / count)) if count else None,
        rel_error=rel_error(sums) if count else None,
        sqnr_db=sqnr(sums) if count else None,
        cosine_distance=_cosine_distance(sums),
        changed_share=sums.changed / sums.elements if sums.elements else 0.0,
        saturated_share=sums.saturated / sums.elements if packed and sums.elements else None,
        nonfinite=sums.nonfinite,
        first_difference=first,
    )


def rel_error(sums: Sums) -> Number:
    """|d| / |x|, 0 when both are."""
    if sums.dd == 0:
        return 0.0
    return number(math.sqrt(sums.dd / sums.xx) if sums.xx else math.inf)


def sqnr(sums: Sums) -> Number:
    """10 log10(|x|^2 / |d|^2) in decibels."""
    if sums.dd == 0:
        return number(math.inf)
    if not (math.isfinite(sums.xx) and math.isfinite(sums.dd)):
        # Squares of float64 that overflow: the error is beyond all measure, or both are.
        return number(-math.inf if math.isfinite(sums.xx) else math.nan)
    return number(10 * (math.log10(sums.xx) - math.log10(sums.dd)) if sums.xx > 0 else -math.inf)


def number(value: float) -> Number:
    """A float as the records have it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _cosine_distance(sums: Sums) -> Number:
    """1 - cos(x, y), from |d|^2 = (|x| - |y|)^2 + 2 |x| |y| (1 - cos): one minus a quotient
    near one would have no digits left. Where the lengths are far apart, nothing is left of
    the last term; sums taken in float32 are never precise there."""
    product = math.sqrt(sums.xx) * math.sqrt(max(sums.yy, 0.0))
    if not product:
        return None
    distance = 1 - sums.xy / product
    if sums.dd <= _APART * product:
        distance = _across(sums) / (2 * product)
    return number(max(distance, 0.0))  # in this order: NaN stays what it is


def _across(sums: Sums) -> float:
    """|d|^2 - (|x| - |y|)^2."""
    length = math.sqrt(sums.xx) + math.sqrt(max(sums.yy, 0.0))
    along = (2 * sums.xd + sums.dd) / length if length else 0.0  # |y| - |x|, without loss
    return sums.dd - along * along


def _dot(x: Array, y: Array) -> float:
    """The scalar product, in blocks whose sums are added in float64."""
    whole = x.size - x.size % _BLOCK
    blocks = np.vecdot(x[:whole].reshape(-1, _BLOCK), y[:whole].reshape(-1, _BLOCK))
    return float(blocks.sum(dtype=np.float64)) + float(np.dot(x[whole:], y[whole:]))
