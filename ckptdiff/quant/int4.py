"""INT4 weights of ModelOpt's AWQ: two rows a byte, one float32 scale a group of columns.

W = w * s, times `pre_quant_scale` where a layer has one; `weight_scale_2` of W4A8 is the step of
the FP8 activations' kernel and no part of W. There is no closed form: AWQ searches its scales
with calibration data, and folds most of them into the norm in front of the layer.
"""

from __future__ import annotations

import numpy as np

from ckptdiff.quant.arrays import F32, Codes, MisfitError, Scales, per_group, smoothed, spread


def dequantise(codes: Codes, scales: Scales, first: int = 0) -> F32:
    """Bytes [R, I] of stored rows from `first` on, scales [O, groups] -> float32 [2R, I].

    Stored row r holds rows 2r (low nibbles) and 2r + 1 (high nibbles) in two's complement.
    """
    stored, columns = codes.shape
    scale = per_group(scales.weight_scale, 2 * first, 2 * stored)
    groups = scale.shape[1]
    if columns and (not groups or columns % groups):
        raise MisfitError(f"{groups} scales a row for {columns} columns")
    values = np.empty((2 * stored, columns), np.float32)
    values[0::2] = (codes << np.uint8(4)).view(np.int8) >> 4
    values[1::2] = codes.view(np.int8) >> 4
    if columns:
        values *= spread(scale.astype(np.float32), columns // groups, columns)
    return smoothed(values, scales.pre_quant_scale)
