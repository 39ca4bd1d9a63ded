"""INT8 weights of ModelOpt: one float32 scale a row, with or without SmoothQuant.

W = w * s, times `pre_quant_scale` for each column under SmoothQuant. Closed form, as ModelOpt
0.47 has it: s = amax(row) / 127, w = round(W / s) in float32, ties to even, within -128 … 127.
SmoothQuant has none: it divides the weight by statistics of calibration data first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant.arrays import F32, Array, Scales, per_row, smoothed
from ckptdiff.quant.dialects import Dialect, hosted, over, sanitised
from ckptdiff.quant.fp8 import amax_channel as amax

__all__ = ["amax", "codes", "dequantise", "scale"]


def dequantise(codes: NDArray[np.int8], scales: Scales, first: int = 0) -> F32:
    """Codes [R, I] of rows from `first` on, scales [O] or [O, 1] -> float32 [R, I]."""
    values = codes.view(np.int8) * per_row(scales.weight_scale, first, len(codes))
    return smoothed(values, scales.pre_quant_scale)


def scale(amax: F32, dialect: Dialect) -> F32:
    """weight_scale [O] for the maxima of the rows [O]: 1 for a row of zeros."""
    return over(sanitised(amax, 127.0, dialect.host), 127.0, dialect.device)


def codes(rows: Array, scales: Scales, dialect: Dialect, first: int = 0) -> NDArray[np.int8]:
    """Base rows [R, I] from `first` on -> codes [R, I]. NaN becomes 0, as in PyTorch on x86."""
    values = hosted(rows, dialect.host).astype(np.float32)
    with np.errstate(all="ignore"):
        values /= per_row(scales.weight_scale, first, len(rows))
    np.rint(values, out=values)
    np.clip(values, -128, 127, out=values)
    if np.isnan(np.sum(values)):  # one reduction, where looking at each would cost a pass more
        values[np.isnan(values)] = 0
    return values.astype(np.int8)
