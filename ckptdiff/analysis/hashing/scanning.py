"""Looks for values that no weight and no scale may have, while the bytes are in the cache.

The codes of every float dtype, read as signed integers, grow with the value up to infinity
and NaN; read as unsigned ones, the negative values come last. So two reductions over the
same bytes find out whether anything is not finite, at the speed of memory, and only where
something is are values counted and located.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.records.digests import Flaws

Codes = NDArray[np.signedinteger]
Buffer = memoryview | bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """How the bytes of one kind of tensor are looked at.

    Codes are `signed` integers. Those from `positive` on are not finite, and so are those
    whose unsigned reading is from `negative` on. With `scale` set, zero and negative values
    are flaws as well.
    """

    signed: np.dtype[np.signedinteger]
    unsigned: np.dtype[np.unsignedinteger]
    positive: int
    negative: int
    scale: bool = False


def _scan(width: int, positive: int, negative: int) -> Scan:
    return Scan(np.dtype(f"<i{width}"), np.dtype(f"<u{width}"), positive, negative)


# The first code that is not finite, without and with the sign bit. E4M3 has no infinity,
# E8M0 has neither sign nor infinity and 255 as its NaN.
_PLAIN = {
    "F8_E4M3": _scan(1, 0x7F, 0xFF),
    "F8_E5M2": _scan(1, 0x7C, 0xFC),
    "F8_E8M0": _scan(1, 0x80, 0xFF),
    "F16": _scan(2, 0x7C00, 0xFC00),
    "BF16": _scan(2, 0x7F80, 0xFF80),
    "F32": _scan(4, 0x7F80_0000, 0xFF80_0000),
    "F64": _scan(8, 0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000),
}
_PLAIN["C64"] = _PLAIN["F32"]
_SCALES = {
    dtype: Scan(s.signed, s.unsigned, s.positive, s.negative, scale=True)
    for dtype, s in _PLAIN.items()
    if dtype != "F8_E8M0"
}
# ModelOpt stores E8M0 block scales as U8; byte 0 is 2^-127 and fine.
_SCALES["U8"] = _SCALES["F8_E8M0"] = _PLAIN["F8_E8M0"]


def scan_for(name: str, dtype: str) -> Scan | None:
    """How a tensor is looked at; None for dtypes in which every code is a number."""
    if name.endswith(("scale", "scale_2")) and scale_suffix(name):
        return _SCALES.get(dtype)
    return _PLAIN.get(dtype)


def is_clean(data: Buffer, scan: Scan) -> bool:
    """Whether no element of `data` (whole elements, little-endian) has a flaw."""
    codes = np.frombuffer(data, scan.signed)
    if not codes.size:
        return True
    if int(codes.max()) >= scan.positive or (scan.scale and int(codes.min()) <= 0):
        return False
    return int(codes.view(scan.unsigned).max()) < scan.negative


def flaws_in(data: Buffer, scan: Scan, first: int = 0) -> Flaws:
    """Flaws in `data`, counted and located. `first` is the index of its first element."""
    codes = np.frombuffer(data, scan.signed)
    above = (codes >= scan.positive) | (codes.view(scan.unsigned) >= scan.negative)
    below = (codes <= 0) & ~above if scan.scale else np.zeros(0, bool)
    return Flaws(*_count(above, first), *_count(below, first))


def merged(one: Flaws | None, other: Flaws) -> Flaws:
    """Flaws of two consecutive parts of one tensor."""
    if one is None:
        return other
    return Flaws(
        one.nonfinite + other.nonfinite,
        _first(one.nonfinite_at, other.nonfinite_at),
        one.nonpositive + other.nonpositive,
        _first(one.nonpositive_at, other.nonpositive_at),
    )


def _count(mask: NDArray[np.bool_], first: int) -> tuple[int, int | None]:
    count = int(np.count_nonzero(mask))
    return count, first + int(mask.argmax()) if count else None


def _first(*places: int | None) -> int | None:
    return min((place for place in places if place is not None), default=None)
