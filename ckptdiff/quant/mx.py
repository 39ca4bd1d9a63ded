"""MX weights: E4M3 or E2M1 codes with a power of two, E8M0, for each 32 columns.

W = w * 2^(e - 127). Closed forms, as ModelOpt 0.47's `MXFP8QTensor` and `MXFP4QTensor` have
them: e - 127 = ceil(log2(amax(block) / 448)), with MXFP4 / 6, not below -127. MXFP8 multiplies
by the reciprocal and saturates; MXFP4's ties go down and its zero is coded 8, that is -0.
"""

from __future__ import annotations

from collections.abc import Callable

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
    smoothed,
    spread,
)
from ckptdiff.quant.dialects import Dialect, hosted, over
from ckptdiff.quant.maxima import group_amax, tensor_amax
from ckptdiff.quant.tables import (
    E2M1_MAX,
    E4M3_MAX,
    E8M0,
    decode,
    decode_e2m1,
    decode_e4m3,
    encode_e2m1_down,
    encode_e4m3,
    pack_e2m1,
)

BLOCK = 32
_LOWEST = np.float32(-127)
# 2^(127 - e) for every byte; there too, 255 is no NaN but 2^-128.
_INVERSE = np.ldexp(np.float32(1), 127 - np.arange(256)).astype(np.float32)


def dequantise_mxfp8(codes: Codes, scales: Scales, first: int = 0) -> F32:
    """Codes [R, I] of rows from `first` on, E8M0 [O, I/32] -> float32 [R, I]."""
    return _scaled(decode_e4m3(codes), scales, first)


def dequantise_mxfp4(codes: Codes, scales: Scales, first: int = 0) -> F32:
    """Bytes [R, I/2] of rows from `first` on, E8M0 [O, I/32] -> float32 [R, I]."""
    return _scaled(decode_e2m1(codes), scales, first)


def scale_mxfp8(base: Rows, dialect: Dialect) -> Codes:
    """weight_scale, E8M0 codes [O, I/32]. NaN in a block gives 0, infinity 254, as there."""
    return _scale(base, dialect, _exponent_mxfp8)


def scale_mxfp4(base: Rows, dialect: Dialect) -> Codes:
    """weight_scale, E8M0 codes [O, I/32]. NaN or infinity in a block gives 0, as on x86."""
    return _scale(base, dialect, _exponent_mxfp4)


def codes_mxfp8(rows: Array, scales: Scales, dialect: Dialect, first: int = 0) -> Codes:
    """Base rows [R, I] from `first` on -> codes [R, I]."""
    values = hosted(rows, dialect.host).astype(np.float32)
    with np.errstate(all="ignore"):
        values *= spread(_inverse(scales, first, len(rows)), BLOCK, values.shape[1])
    np.clip(values, -E4M3_MAX, E4M3_MAX, out=values)
    return encode_e4m3(values)


def codes_mxfp4(rows: Array, scales: Scales, dialect: Dialect, first: int = 0) -> Codes:
    """Base rows [R, I] from `first` on -> bytes [R, I/2]. I is even."""
    values = hosted(rows, dialect.host).astype(np.float32)
    if values.shape[1] % 2:
        raise MisfitError(f"{values.shape[1]} columns cannot be packed two a byte")
    step = decode(E8M0, _bytes(scales, first, len(rows)))
    if not np.isfinite(tensor_amax(values)):
        # There the exponent itself was not finite, which makes every quotient 0 or NaN.
        step[~np.isfinite(group_amax(values, BLOCK))] = np.inf
    with np.errstate(all="ignore"):
        values /= spread(step, BLOCK, values.shape[1])
    values[np.isnan(values)] = 0
    return pack_e2m1(encode_e2m1_down(values))


def _scaled(values: F32, scales: Scales, first: int) -> F32:
    step = decode(E8M0, _bytes(scales, first, len(values)))
    values *= spread(step, BLOCK, values.shape[1])
    return smoothed(values, scales.pre_quant_scale)


def _bytes(scales: Scales, first: int, rows: int) -> Codes:
    return per_group(scales.weight_scale, first, rows).view(np.uint8)


def _inverse(scales: Scales, first: int, rows: int) -> F32:
    return _INVERSE.take(_bytes(scales, first, rows))


def _scale(base: Rows, dialect: Dialect, exponent: Callable[[F32, Dialect], F32]) -> Codes:
    out = np.empty((base.count, blocks(base.columns, BLOCK)), np.uint8)
    for first, rows in base.chunks():
        biased = exponent(group_amax(hosted(rows, dialect.host), BLOCK), dialect) + 127
        biased[~np.isfinite(biased)] = 0
        out[first : first + len(rows)] = biased.astype(np.uint8)
    return out


def _exponent_mxfp8(amax: F32, dialect: Dialect) -> F32:
    part = over(amax, float(E4M3_MAX), dialect.device)
    # What is not above zero takes the lowest exponent, and so does NaN.
    raised = np.where(part > 0, _ceil_log2(part), _LOWEST)
    return np.clip(raised, _LOWEST, np.float32(127))


def _exponent_mxfp4(amax: F32, dialect: Dialect) -> F32:
    return np.maximum(_ceil_log2(over(amax, float(E2M1_MAX), dialect.device)), _LOWEST)


def _ceil_log2(values: F32) -> F32:
    """ceil(log2(x)) of a logarithm in float32, which just above a large power of two is the
    power itself: that is how the exporter's comes out too."""
    with np.errstate(all="ignore"):
        return np.ceil(np.log2(values.astype(np.float64)).astype(np.float32))
