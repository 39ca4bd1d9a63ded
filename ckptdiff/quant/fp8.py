"""FP8 weights of ModelOpt: F8_E4M3 codes with a float32 scale a tensor, a row or a block.

W = w * s. Closed forms, as ModelOpt 0.47's `get_scaling_factor` and `to_quantized_weight` have
them: s = amax / 448, and the codes from the stored s. Per row and per block W / s is a float32,
and `export_amax` has had its way with amax; per tensor s has no dimension, so the quotient has
the model's dtype T, and on a GPU s as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import ml_dtypes
import numpy as np

from ckptdiff.quant.arrays import (
    F32,
    Array,
    Codes,
    MisfitError,
    Rows,
    Scales,
    blocks,
    per_row,
    scalar,
    smoothed,
    spread,
)
from ckptdiff.quant.dialects import Dialect, hosted, over, rounded, sanitised
from ckptdiff.quant.maxima import block_amax, row_amax, tensor_amax
from ckptdiff.quant.tables import E4M3_MAX, decode_e4m3, encode_e4m3

BLOCK = 128
_BOUND = float(E4M3_MAX)


def dequantise(codes: Codes, scales: Scales, first: int = 0) -> F32:
    """Codes [R, I] with one scale -> float32 [R, I]."""
    with np.errstate(all="ignore"):
        values = decode_e4m3(codes, scalar(scales.weight_scale))
    return smoothed(values, scales.pre_quant_scale)


def dequantise_channel(codes: Codes, scales: Scales, first: int = 0) -> F32:
    """Codes [R, I] of rows from `first` on, scales [O] or [O, 1] -> float32 [R, I]."""
    values = decode_e4m3(codes)
    values *= per_row(scales.weight_scale, first, len(codes))
    return smoothed(values, scales.pre_quant_scale)


def dequantise_block(codes: Codes, scales: Scales, first: int = 0, block: int = BLOCK) -> F32:
    """Codes [R, I] of rows from `first` on, a scale for each 128x128 block -> float32 [R, I].

    The scales are [O/128, 1, I/128, 1] or [O/128, I/128], rounded up, or of any shape when
    there is one block only.
    """
    values = decode_e4m3(codes)
    for rows, step in _block_rows(scales.weight_scale, first, codes.shape, block):
        values[rows] *= step
    return smoothed(values, scales.pre_quant_scale)


def amax(base: Rows, dialect: Dialect) -> F32:
    """The absolute maximum of a whole weight, float32 []."""
    parts = [tensor_amax(hosted(rows, dialect.host)) for _, rows in base.chunks()]
    return np.asarray(np.max(np.array(parts, np.float32), initial=0))


def amax_channel(base: Rows, dialect: Dialect) -> F32:
    """The absolute maximum of each row, float32 [O]."""
    out = np.zeros(base.count, np.float32)
    for first, rows in base.chunks():
        out[first : first + len(rows)] = row_amax(hosted(rows, dialect.host))
    return out


def amax_block(base: Rows, dialect: Dialect) -> F32:
    """The absolute maximum of each 128x128 block, float32 [O/128, I/128], rounded up."""
    out = np.zeros((blocks(base.count, BLOCK), blocks(base.columns, BLOCK)), np.float32)
    for first, rows in base.chunks():
        part = block_amax(hosted(rows, dialect.host), first, BLOCK)
        place = out[first // BLOCK : first // BLOCK + len(part)]
        np.maximum(place, part, out=place)
    return out


def scale(amax: F32, dialect: Dialect) -> F32:
    """weight_scale, float32 []: 0 for a weight of zeros."""
    return over(amax, _BOUND, dialect.device)


def scale_channel(amax: F32, dialect: Dialect) -> F32:
    """weight_scale [O] for the maxima of the rows [O]: 1 for a row of zeros."""
    return over(sanitised(amax, _BOUND, dialect.host), _BOUND, dialect.device)


def scale_block(amax: F32, dialect: Dialect) -> F32:
    """weight_scale of maxima [O/128, I/128] in the shape it is stored in, 1 for zeros."""
    found = scale_channel(amax, dialect)
    return found.reshape(()) if found.size == 1 else found[:, None, :, None]


def codes(rows: Array, scales: Scales, dialect: Dialect, first: int = 0) -> Codes:
    """Base rows [R, I] -> codes [R, I], by `e4m3(T(T(W) / s))` or, CUDA, `e4m3(T(T(W) / T(s)))`.

    A scale of 0, which ModelOpt writes for a weight of zeros, gives NaN codes, as there.
    """
    weight = hosted(rows, dialect.host)
    step = scalar(scales.weight_scale)
    # There are 65,536 weights of 16 bits: a large matrix is looked up.
    if weight.dtype.itemsize == 2 and weight.size > 1 << 15:
        return _codes_of_all(float(step), dialect).take(weight.view(np.uint16))
    return _codes(weight, step, dialect)


def codes_channel(rows: Array, scales: Scales, dialect: Dialect, first: int = 0) -> Codes:
    """Base rows [R, I] from `first` on -> codes [R, I], by `e4m3(W / s)` in float32."""
    values = hosted(rows, dialect.host).astype(np.float32)
    with np.errstate(all="ignore"):
        values /= per_row(scales.weight_scale, first, len(rows))
    return encode_e4m3(values)


def codes_block(rows: Array, scales: Scales, dialect: Dialect, first: int = 0) -> Codes:
    """Base rows [R, I] from `first` on -> codes [R, I], by `e4m3(W / s)` in float32."""
    values = hosted(rows, dialect.host).astype(np.float32)
    with np.errstate(all="ignore"):
        for part, step in _block_rows(scales.weight_scale, first, rows.shape, BLOCK):
            values[part] /= step
    return encode_e4m3(values)


def _codes(weight: Array, step: np.float32, dialect: Dialect) -> Codes:
    with np.errstate(all="ignore"):
        if dialect.device == "cuda":
            step = np.float32(rounded(np.asarray(step), dialect.host))
        quotient = weight.astype(np.float32) / step
    return encode_e4m3(rounded(quotient, dialect.host))


@lru_cache(maxsize=8)
def _codes_of_all(step: float, dialect: Dialect) -> Codes:
    """The code of each of the 65,536 weights that a host of 16 bits can hold."""
    kind = ml_dtypes.bfloat16 if dialect.host == "BF16" else np.float16
    every = np.arange(1 << 16, dtype=np.uint16).view(kind)
    return _codes(every, np.float32(step), dialect)


def _block_rows(
    scale: Array, first: int, shape: tuple[int, ...], block: int
) -> Iterator[tuple[slice, F32]]:
    """Rows [first, first + R) by block row: where they are in [0, R), and a scale a column."""
    rows, columns = shape
    grid = scale.reshape(1, 1) if scale.size == 1 else scale
    if grid.ndim == 4:
        grid = grid[:, 0, :, 0]
    if grid.ndim != 2 or grid.size != scale.size or blocks(first + rows, block) > len(grid):
        raise MisfitError(f"scales of {list(scale.shape)} for rows up to {first + rows}")
    wide = spread(grid.astype(np.float32), block, columns)
    for number in range(first // block, blocks(first + rows, block)):
        start, stop = number * block - first, (number + 1) * block - first
        yield slice(max(start, 0), stop), wide[number]
