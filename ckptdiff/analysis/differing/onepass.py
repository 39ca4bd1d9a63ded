"""All sums of two chunks in one pass over memory, compiled by numba (the extra `fast`).

numpy goes through memory once for every operation, a dozen times in all, in float32. Here each
element is taken up once, in float64 and whatever its value, which takes a third of the time:
what `Sums.take_exactly` says, for the price of less than `Sums.take`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ckptdiff.quant.arrays import F32

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


OnePass = Callable[[F32, F32, bool], tuple[Any, ...]]


@lru_cache(maxsize=1)
def one_pass() -> OnePass | None:
    """The compiled pass over `x` and `y` of one length, and whether an element counts as changed
    when its bits differ, not only when its value does: gives the fields of `Passed`.

    None where numba is not installed, does not compile, or cannot keep or read what it
    compiled: that takes a second, and lies beside this file or in the user's cache.
    """
    try:
        from numba import config, njit, types

        if getattr(config, "DISABLE_JIT", False):
            return None
        chunk = types.Array(types.float32, 1, "C", readonly=True)
        # Sums may be taken in any order, but nothing is assumed about NaN and infinities.
        compiled: OnePass = njit(
            [(chunk, chunk, types.boolean)],
            nogil=True,
            cache=True,
            fastmath={"reassoc", "contract", "nsz"},
        )(_passed)
    # Whatever a full disk, another user or a crash made of numba's files: numpy needs none.
    except Exception:
        return None
    return compiled


def _passed(x: F32, y: F32, bitwise: bool) -> tuple[Any, ...]:
    # Written for the compiler: without branches, comparing bits as integers and not floats,
    # about whose NaN it would have to be careful, it works on eight elements at a time.
    xx = xd = dd = yy = xy = size = 0.0
    top = np.int64(0)
    changed = nonfinite = np.int32(0)
    x_bits, y_bits = x.view(np.int32), y.view(np.int32)
    for k in range(x.size):
        a_bits, b_bits = x_bits[k] & _MAGNITUDE, y_bits[k] & _MAGNITUDE
        alike = (a_bits | b_bits == 0) | (min(a_bits, b_bits) > _INFINITE)  # zeros, or NaN
        changed += np.int32((x_bits[k] != y_bits[k]) & (bitwise | (not alike)))
        finite = (a_bits < _INFINITE) & (b_bits < _INFINITE)
        nonfinite += np.int32(not finite)
        a = np.float64(x[k] if finite else _ZERO)
        b = np.float64(y[k] if finite else _ZERO)
        d = b - a
        xx += a * a
        xd += a * d
        dd += d * d
        yy += b * b
        xy += a * b
        size += abs(d)
        top = max(top, np.float64(abs(d)).view(np.int64))
    return xx, xd, dd, yy, xy, size, top, changed, nonfinite
