"""All sums of two chunks in one pass over memory, compiled by numba (the extra `fast`).

numpy goes through memory once for every operation, a dozen times in all, in float32. Here each
element is taken up once, in float64 and whatever its value, which takes a third of the time:
what `Sums.take_exactly` says, for the price of less than `Sums.take`. BF16 is taken as it is
stored: to write it out as float32 first takes a fifth longer.
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


@lru_cache(maxsize=1)
def one_pass() -> OnePass | None:
    """The compiled pass over `x` and `y` of one length, contiguous and both float32 or both BF16,
    and whether an element counts as changed when its bits differ, not only when its value does
    (BF16: always): gives the fields of `Passed`.

    None where numba is not installed, does not compile, or cannot keep or read what it
    compiled: that takes seconds, and lies beside this file or in the user's cache.
    """
    try:
        from numba import config, njit, types

        if getattr(config, "DISABLE_JIT", False):
            return None
        singles, halves = (
            njit(
                [(chunk, chunk, types.boolean)],
                nogil=True,
                cache=True,
                fastmath={"reassoc", "contract", "nsz"},
            )(_pass(shift, bits_alone))
            for chunk, shift, bits_alone in (
                (types.Array(types.int32, 1, "C", readonly=True), 0, False),
                (types.Array(types.int16, 1, "C", readonly=True), 16, True),
            )
        )
    # Whatever a full disk, another user or a crash made of numba's files: numpy needs none.
    except Exception:
        return None

    def passed(x: Array, y: Array, bitwise: bool) -> tuple[Any, ...]:
        if x.dtype == np.float32:
            found: tuple[Any, ...] = singles(x.view(np.int32), y.view(np.int32), bitwise)
        else:
            found = halves(x.view(np.int16), y.view(np.int16), True)
        return found

    return passed


def _pass(shift: int, bits_alone: bool) -> Callable[..., tuple[Any, ...]]:
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
            x_bits, y_bits = np.int32(np.int32(x[k]) << shift), np.int32(np.int32(y[k]) << shift)
            a_bits, b_bits = x_bits & _MAGNITUDE, y_bits & _MAGNITUDE
            alike = (a_bits | b_bits == 0) | (min(a_bits, b_bits) > _INFINITE)  # zeros, or NaN
            changed += np.int32((x_bits != y_bits) & (bits_alone | bitwise | (not alike)))
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
