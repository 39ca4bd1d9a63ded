"""All sums of two chunks in one pass over memory, compiled by numba (the extra `fast`).

numpy goes through memory once for every operation, a dozen times in all, in float32. Here each
element is taken up once, in float64 and whatever its value, which takes a third of the time:
what `Sums.take_exactly` says, for the price of less than `Sums.take`. BF16 is taken as it is
stored: with a float32 of it written out first, everything takes half as long again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ckptdiff.quant.arrays import Array

_MAGNITUDE, _INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_ZERO = np.float32(0)


class Passed(NamedTuple):
    """What `Sums` has of the same names, of one chunk; `top` as the bits of a float64."""

    xx: float
    xd: float
    dd: float
    yy: float
    xy: float
    size: float
    top: int
    changed: int
    nonfinite: int


OnePass = Callable[[Array, Array, bool], tuple[Any, ...]]
# Of what is given, the array of integers of the same width, and by how far they are to be shifted
# to the left to be the bits of a float32.
_F32, _BF16 = ("int32", 0), ("int16", 16)


@lru_cache(maxsize=1)
def one_pass() -> OnePass | None:
    """The compiled pass over `x` and `y` of one length, contiguous, and whether an element counts
    as changed when its bits differ, not only when its value does: gives the fields of `Passed`.

    Both are float32, or `x` is BF16, or both are, which are always compared by their bits. None
    where numba is not installed, does not compile, or cannot keep or read what it compiled:
    that takes seconds, and lies beside this file or in the user's cache.
    """
    try:
        from numba import config, njit, types

        if getattr(config, "DISABLE_JIT", False):
            return None

        def compiled(x: tuple[str, int], y: tuple[str, int], by_bits: bool) -> OnePass:
            arrays = (
                types.Array(getattr(types, kind), 1, "C", readonly=True) for kind, _ in (x, y)
            )
            # Sums may be taken in any order, but nothing is assumed about NaN and infinities.
            made: OnePass = njit(
                [(*arrays, types.boolean)],
                nogil=True,
                cache=True,
                fastmath={"reassoc", "contract", "nsz"},
            )(_pass(x[1], y[1], by_bits))
            return made

        both_f32 = compiled(_F32, _F32, False)
        from_bf16 = compiled(_BF16, _F32, False)
        both_bf16 = compiled(_BF16, _BF16, True)
    # Whatever a full disk, another user or a crash made of numba's files: numpy needs none.
    except Exception:
        return None

    def passed(x: Array, y: Array, bitwise: bool) -> tuple[Any, ...]:
        if x.dtype == np.float32:
            return both_f32(x.view(np.int32), y.view(np.int32), bitwise)
        if y.dtype == np.float32:
            return from_bf16(x.view(np.int16), y.view(np.int32), bitwise)
        return both_bf16(x.view(np.int16), y.view(np.int16), bitwise)

    return passed


def _pass(x_shift: int, y_shift: int, by_bits: bool) -> Callable[..., tuple[Any, ...]]:
    """The pass over integers that are the bits of float32 when they are shifted to the left.

    What is given here is a constant to the compiler, which then leaves out what it makes needless.
    """

    # Written for the compiler: without branches, comparing bits as integers and not floats,
    # about whose NaN it would have to be careful, it works on eight elements at a time.
    def passed(x: Array, y: Array, bitwise: bool) -> tuple[Any, ...]:
        xx = xd = dd = yy = xy = size = 0.0
        top = np.int64(0)
        changed = nonfinite = np.int32(0)
        for k in range(x.size):
            x_bits = np.int32(np.int32(x[k]) << x_shift)
            y_bits = np.int32(np.int32(y[k]) << y_shift)
            a_bits, b_bits = x_bits & _MAGNITUDE, y_bits & _MAGNITUDE
            alike = (a_bits | b_bits == 0) | (min(a_bits, b_bits) > _INFINITE)  # zeros, or NaN
            changed += np.int32((x_bits != y_bits) & (by_bits | bitwise | (not alike)))
            finite = (a_bits < _INFINITE) & (b_bits < _INFINITE)
            nonfinite += np.int32(not finite)
            a_value, b_value = x_bits.view(np.float32), y_bits.view(np.float32)
            a = np.float64(a_value if finite else _ZERO)
            b = np.float64(b_value if finite else _ZERO)
            d = b - a
            xx += a * a
            xd += a * d
            dd += d * d
            yy += b * b
            xy += a * b
            size += abs(d)
            top = max(top, np.float64(abs(d)).view(np.int64))
        return xx, xd, dd, yy, xy, size, top, changed, nonfinite

    return passed
