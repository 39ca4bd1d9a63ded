"""The small floats as tables: what every code is worth, and the code of every value.

A value becomes a code in two exact steps. A float32 is cut to 16 bits, *rounding to odd*: the
last bit kept is set when anything was cut off. Those 16 bits are still on the same side of
every rounding border of a float with at least two bits less, and they index a table of 65,536
codes, which ml_dtypes fills. That is three times as fast as ml_dtypes' own cast.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant.arrays import F32, Codes

E4M3_MAX = np.float32(448)
E2M1_MAX = np.float32(6)

E2M1_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
# Half-way between neighbours: a value on border i lies between codes i and i + 1.
_E2M1_BORDERS = (E2M1_VALUES[:-1] + E2M1_VALUES[1:]) / 2

_BYTES = np.arange(256, dtype=np.uint8)
_E4M3_BIAS = np.float32(2.0 ** (127 - 7))
_E4M3_NAN = np.uint8(0x7F)
_E4M3_FIELDS = np.uint32(0x87F00000).view(np.int32)
_HALVES = np.arange(1 << 16, dtype=np.uint32) << 16  # every BF16, as the float32 it is
_ALL = _HALVES.view(np.float32)


def _frozen(table: NDArray[np.generic]) -> None:
    table.setflags(write=False)


def _e4m3_codes() -> Codes:
    with np.errstate(invalid="ignore"):  # NaN and what overflows become NaN, as they should
        return _ALL.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def _e2m1_codes(zero: int, ties_to_even: bool) -> Codes:
    """Codes of all BF16. NaN takes the largest magnitude, as a sorted search gives it."""
    size = np.abs(_ALL)
    magnitude = np.searchsorted(_E2M1_BORDERS, size)  # a tie goes down
    if ties_to_even:
        magnitude += np.isin(size, _E2M1_BORDERS[1::2])  # between an odd code and the next
    return (magnitude | np.where(_ALL < 0, 8, 0) | np.where(_ALL == 0, zero, 0)).astype(np.uint8)


E4M3 = _BYTES.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
"""float32 [256]: what a code of F8_E4M3 is worth. 0x7f and 0xff are NaN; no infinities."""

E8M0 = np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan))
"""float32 [256]: 2^(code - 127), exact also as the subnormal 2^-127; 255 is NaN."""

E2M1_PAIRS = np.concatenate([E2M1_VALUES, -E2M1_VALUES])[
    np.stack([_BYTES & 15, _BYTES >> 4], axis=1)
]
"""float32 [256, 2]: what the low and the high nibble of a byte are worth."""

_E2M1_PAIRS_64 = E2M1_PAIRS.reshape(-1).view(np.uint64)
_E4M3_CODES = _e4m3_codes()
_E2M1_EVEN = _e2m1_codes(zero=0, ties_to_even=True)
_E2M1_DOWN = _e2m1_codes(zero=8, ties_to_even=False)

for _table in (E4M3, E8M0, E2M1_PAIRS, _E4M3_CODES, _E2M1_EVEN, _E2M1_DOWN):
    _frozen(_table)


def decode(table: F32, codes: Codes) -> F32:
    """The float32 that each code stands for, by a table of 256."""
    out = np.empty(codes.shape, np.float32)
    # Without a mode of its own, take() copies `out` first.
    return np.take(table, codes, out=out, mode="clip")


def decode_e4m3(codes: Codes, step: np.float32 | float = 1.0) -> F32:
    """What codes of F8_E4M3 are worth times `step`, rounded once: as by the table.

    Sign, exponent and fraction are moved to where a float32 has them, which is off by a power
    of two that the product puts right, subnormals included: three times as fast as looking up.
    """
    factor = np.float32(step) * _E4M3_BIAS
    # 0x7f, the only NaN, would come out as 480.
    if not 0 < factor < np.inf or (codes & _E4M3_NAN).max(initial=0) == _E4M3_NAN:
        return decode(E4M3 * np.float32(step), codes)
    bits = codes.view(np.int8).astype(np.int32)
    bits <<= 20
    bits &= _E4M3_FIELDS
    values = bits.view(np.float32)
    values *= factor
    return values


def decode_e2m1(packed: Codes) -> F32:
    """Bytes [R, I/2] to values [R, I]; the low nibble is the even column."""
    rows, columns = packed.shape
    out = np.empty((rows, columns), np.uint64)
    np.take(_E2M1_PAIRS_64, packed, out=out, mode="clip")
    return out.view(np.float32)


def encode_e4m3(values: F32) -> Codes:
    """F8_E4M3 codes, to the nearest and ties to even; beyond 464 and for NaN the NaN code.

    PyTorch 2.13 saturates beyond 464 instead. No weight over its own scale gets there.
    """
    return _E4M3_CODES.take(_odd16(values))


def encode_e2m1(values: F32) -> Codes:
    """E2M1 codes as NVFP4 has them: nearest, ties to the even code, saturating, NaN as 7."""
    return _E2M1_EVEN.take(_odd16(values))


def encode_e2m1_down(values: F32) -> Codes:
    """E2M1 codes as ModelOpt's MXFP4 has them: ties to the smaller magnitude, zero as 8."""
    return _E2M1_DOWN.take(_odd16(values))


def pack_e2m1(codes: Codes) -> Codes:
    """Codes [R, I] to bytes [R, I/2]; I is even."""
    return codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)


def _odd16(values: F32) -> NDArray[np.uint32]:
    """The upper 16 bits of each float32, the last one set if anything below was."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    upper: NDArray[np.uint32] = bits >> 16 | (bits & 0xFFFF != 0)
    return upper
