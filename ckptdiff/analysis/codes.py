"""Codes as codes: which are at their extreme, and how many representable values lie between two.

Nothing here knows what a code is worth: that is `quant`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant.arrays import Array
from ckptdiff.records.layout import LayoutName

_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_PLACES_INT4 = ((np.arange(16) + 8) % 16 - 8).astype(np.int16)
_PLACES_FP4 = np.where(np.arange(16) < 8, np.arange(16), 8 - np.arange(16)).astype(np.int16)


@dataclass(slots=True)
class CodeSums:
    """What is known of some stored codes; `first` counts codes in the order of the file."""

    codes: int = 0
    changed: int = 0
    max_steps: int = 0
    first: int | None = None

    def add(self, other: CodeSums) -> None:
        self.codes += other.codes
        self.changed += other.changed
        self.max_steps = max(self.max_steps, other.max_steps)
        if other.first is not None and (self.first is None or other.first < self.first):
            self.first = other.first


def at_their_extreme(layout: LayoutName, stored: Array) -> int:
    """How many weights have the largest magnitude that their codes can say."""
    codes = stored.view(np.uint8)
    if layout.startswith(("nvfp4", "mxfp4")):  # a magnitude of 7 in either nibble
        return _count(codes & np.uint8(0x07) == 0x07) + _count(codes & np.uint8(0x70) == 0x70)
    if layout.startswith("int4"):  # a nibble of 7 or 8, which stands for -8
        low, high = codes + np.uint8(0x01), codes + np.uint8(0x10)
        return _count(low & np.uint8(0x0E) == 0x08) + _count(high & np.uint8(0xE0) == 0x80)
    if layout == "int8":
        signed = stored.view(np.int8)
        return _count(signed == 127) + _count(signed <= -127)
    return _count(codes & np.uint8(0x7F) == 0x7E)


def code_sums(layout: LayoutName | None, dtype: str, a: Array, b: Array, first: int) -> CodeSums:
    """Stored codes of both sides against each other, `first` being the number of their first.

    Codes of floats are counted along the values that they stand for, from the largest negative
    one up; -0 and 0 are one place.
    """
    width = 2 if _is_packed(layout, dtype) else 1
    x, y = a.reshape(-1), b.reshape(-1)
    differs = bits(x) != bits(y)
    found = CodeSums(codes=width * x.size)
    where = np.flatnonzero(differs)
    if not where.size:
        return found
    # Only codes that differ are looked at: most often they are few.
    places: list[Array] = [_places(layout, dtype, side[where]) for side in (x, y)]
    if a.dtype.itemsize == 8:  # from one end to the other is more than int64 holds
        places = [side.astype(np.float64) for side in places]
    apart = np.abs(places[1] - places[0])
    if width == 2:
        raw = [_nibbles(side[where]) for side in (x, y)]
        unequal = raw[0] != raw[1]
        found.changed = int(np.count_nonzero(unequal))
        found.first = 2 * (first + int(where[0])) + int(unequal[0].argmax())
    else:
        found.changed = int(where.size)
        found.first = first + int(where[0])
    found.max_steps = int(apart.max())
    return found


def _is_packed(layout: LayoutName | None, dtype: str) -> bool:
    return dtype == "U8" and layout is not None


def _places(layout: LayoutName | None, dtype: str, codes: Array) -> NDArray[np.int64]:
    """Where codes stand in the order of the values that they stand for."""
    if _is_packed(layout, dtype):
        table = _PLACES_INT4 if layout and layout.startswith("int4") else _PLACES_FP4
        return table[_nibbles(codes)].astype(np.int64)
    if dtype.startswith(("I", "U")):
        return codes.astype(np.int64)
    if dtype == "F8_E8M0":
        return codes.astype(np.int64)
    signed = codes.view(np.dtype(f"i{codes.dtype.itemsize}")).astype(np.int64)
    magnitude = signed & (1 << 8 * codes.dtype.itemsize - 1) - 1
    return np.where(signed < 0, -magnitude, magnitude)


def _nibbles(codes: Array) -> NDArray[np.uint8]:
    """Bytes [n] to nibbles [n, 2], low ones first."""
    return np.stack([codes & 15, codes >> 4], axis=-1).astype(np.uint8)


def bits(array: Array) -> Array:
    """The bytes of each element as one unsigned integer."""
    return array.view(_UNSIGNED[array.dtype.itemsize])


def _count(flags: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(flags))
