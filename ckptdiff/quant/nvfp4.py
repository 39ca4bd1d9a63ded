"""NVFP4 weights of ModelOpt: E2M1 codes, an F8_E4M3 scale a block and one float32 a tensor.

W = e2m1(w) * (s * s2), the inner product in float32, times `pre_quant_scale` where a layer has
one. Blocks are 16 columns; W4A8_NVFP4_FP8 has blocks of 32 and another s2, because its kernel
turns the weight into FP8. Closed forms, as ModelOpt 0.47's `NVFP4QTensor` has them:
s2 = amax / (6 * 448), with blocks of 32 amax / 448; r = amax(block) / (6 * s2), 0 becoming 1,
clamped to 2^-9 … 448, s = e4m3(r); w = e2m1(W / (s * s2)), nearest, ties to the even code.
amax is over all linears that share an input.
"""

from __future__ import annotations

import numpy as np

from ckptdiff.quant.arrays import (
    F32,
    Array,
    Codes,
    MisfitError,
    Rows,
    Scales,
    blocks,
    per_group,
    scalar,
    smoothed,
    spread,
)
from ckptdiff.quant.dialects import Device, Dialect, hosted, over
from ckptdiff.quant.fp8 import amax
from ckptdiff.quant.maxima import group_amax
from ckptdiff.quant.tables import (
    E2M1_MAX,
    E4M3,
    E4M3_MAX,
    decode,
    decode_e2m1,
    encode_e2m1,
    encode_e4m3,
    pack_e2m1,
)

__all__ = ["amax", "codes", "dequantise", "scale", "scale_2", "scale_2_wide"]

BLOCK = 16
WIDE = 32


def dequantise(codes: Codes, scales: Scales, first: int = 0, block: int = BLOCK) -> F32:
    """Bytes [R, I/2] of rows from `first` on, block scales [O, I/block] -> float32 [R, I]."""
    values = decode_e2m1(codes)
    values *= spread(_steps(scales, first, len(codes)), block, values.shape[1])
    return smoothed(values, scales.pre_quant_scale)


def scale_2(amax: F32, device: Device) -> F32:
    """weight_scale_2 of NVFP4, float32 []; `amax` is the fused group's."""
    return over(amax, float(E2M1_MAX * E4M3_MAX), device)


def scale_2_wide(amax: F32, device: Device) -> F32:
    """weight_scale_2 of W4A8_NVFP4_FP8, float32 []; `amax` is the fused group's."""
    return over(amax, float(E4M3_MAX), device)


def scale(base: Rows, scale_2: F32, dialect: Dialect, block: int = BLOCK) -> Codes:
    """weight_scale, F8_E4M3 codes [O, I/block], of a whole weight whose scale_2 is known."""
    out = np.empty((base.count, blocks(base.columns, block)), np.uint8)
    with np.errstate(all="ignore"):
        six = E2M1_MAX * scalar(scale_2)
        for first, rows in base.chunks():
            ratio = group_amax(hosted(rows, dialect.host), block) / six
            ratio[ratio == 0] = 1
            np.clip(ratio, np.float32(2**-9), E4M3_MAX, out=ratio)
            out[first : first + len(rows)] = encode_e4m3(ratio)
    return out


def codes(
    rows: Array, scales: Scales, dialect: Dialect, first: int = 0, block: int = BLOCK
) -> Codes:
    """Base rows [R, I] from `first` on -> bytes [R, I/2]. I is even."""
    values = hosted(rows, dialect.host).astype(np.float32)
    if values.shape[1] % 2:
        raise MisfitError(f"{values.shape[1]} columns cannot be packed two a byte")
    with np.errstate(all="ignore"):
        values /= spread(_steps(scales, first, len(rows)), block, values.shape[1])
    return pack_e2m1(encode_e2m1(values))


def _steps(scales: Scales, first: int, rows: int) -> F32:
    """What a code of 1 is worth in each block of some rows, [R, I/block]."""
    if scales.weight_scale_2 is None:
        raise MisfitError("NVFP4 without weight_scale_2")
    fine = decode(E4M3, per_group(scales.weight_scale, first, rows).view(np.uint8))
    with np.errstate(all="ignore"):
        fine *= scalar(scales.weight_scale_2)
    return fine
