"""Weights in the formats of compressed-tensors (llm-compressor): dequantised only.

Formulas and packing are those of compressed-tensors 0.20. It computes in the dtype of the
scale, often BF16; here the product is float32, so that is its result before rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant import fp8
from ckptdiff.quant.arrays import (
    F32,
    Array,
    Codes,
    MisfitError,
    Scales,
    per_group,
    per_row,
    scalar,
    spread,
)
from ckptdiff.quant.packing import unpack
from ckptdiff.quant.tables import E4M3, decode, decode_e2m1

_NVFP4_BLOCK = 16


def dequantise_float(codes: Codes, scale: Array, first: int = 0, block: int | None = None) -> F32:
    """float-quantized: F8_E4M3 codes [R, I] of rows from `first` on -> float32 [R, I].

    `scale` is [] or [1], [O, 1], or, with `block` the side of `block_structure`, one for each
    block, [O/block, I/block] rounded up. (A column of scales could be either.)
    """
    scales = Scales(scale)
    with np.errstate(all="ignore"):
        if block is not None:
            return fp8.dequantise_block(codes, scales, first, block)
        if scale.size == 1:
            return fp8.dequantise(codes, scales)
        return fp8.dequantise_channel(codes, scales, first)


def dequantise_int(
    codes: NDArray[np.int8],
    scale: Array,
    zero_point: Array | None = None,
    first: int = 0,
    group_index: Array | None = None,
) -> F32:
    """int-quantized: int8 [R, I] of rows from `first` on -> float32 [R, I], (w - z) * s.

    `scale` is [] or [1], [O], [O, 1] or [O, groups]; `zero_point`, if any, has its shape.
    `group_index` is `weight_g_idx` [I] of activation ordering, if there is one.
    """
    return _affine(codes.astype(np.float32), scale, zero_point, first, group_index)


def dequantise_packed(
    words: NDArray[np.int32],
    columns: int,
    bits: int,
    scale: Array,
    zero_point: NDArray[np.int32] | None = None,
    group_index: Array | None = None,
    first: int = 0,
) -> F32:
    """pack-quantized: `weight_packed` [R, words] of rows from `first` on -> float32 [R, I].

    `columns` is I of `weight_shape`, `bits` 1 to 8. `scale` as for `dequantise_int`.
    `zero_point` is the file's, packed along its rows: [O * bits / 32, groups].
    `group_index` is `weight_g_idx` [I] of activation ordering, if there is one.
    """
    # Stored numbers are shifted to be unsigned, the zero point by as much.
    offset = 1 << (bits - 1)
    values = unpack(words, bits, columns).astype(np.float32) - np.float32(offset)
    zero: Array | None = None
    if zero_point is not None:
        zero = unpack(zero_point.T, bits, scale.shape[0]).T.astype(np.float32) - offset
    return _affine(values, scale, zero, first, group_index)


def dequantise_nvfp4(codes: Codes, scale: Codes, global_scale: Array, first: int = 0) -> F32:
    """nvfp4-pack-quantized: bytes [R, I/2] of rows from `first` on -> float32 [R, I].

    `scale` has F8_E4M3 codes [O, I/16]. `weight_global_scale` divides: it is 1 / weight_scale_2
    of ModelOpt.
    """
    values = decode_e2m1(codes)
    step = decode(E4M3, per_group(scale, first, len(codes)).view(np.uint8))
    with np.errstate(all="ignore"):
        step /= scalar(global_scale)
        values *= spread(step, _NVFP4_BLOCK, values.shape[1])
    return values


def _affine(
    values: F32, scale: Array, zero: Array | None, first: int, group_index: Array | None
) -> F32:
    """(values - zero) * scale, in place, whatever the two stand for."""
    with np.errstate(all="ignore"):
        if zero is not None and zero.size:
            values -= _columnwise(zero, first, values.shape, group_index)
        values *= _columnwise(scale, first, values.shape, group_index)
    return values


def _columnwise(scale: Array, first: int, shape: tuple[int, ...], group_index: Array | None) -> F32:
    """A scale or zero point as something that goes with [R, I] elementwise."""
    rows, columns = shape
    if scale.size == 1:
        return np.asarray(scalar(scale))
    if scale.ndim == 1 or scale.shape[1] == 1:
        return per_row(scale, first, rows)
    part = per_group(scale, first, rows).astype(np.float32)
    groups = part.shape[1]
    if group_index is not None:
        if group_index.shape != (columns,):
            raise MisfitError(f"group index of {list(group_index.shape)} for {columns} columns")
        if columns and not 0 <= group_index.min() <= group_index.max() < groups:
            raise MisfitError(f"group index outside of {groups} groups")
        return part[:, group_index]
    if not groups or columns % groups:
        raise MisfitError(f"{groups} scales a row for {columns} columns")
    return spread(part, columns // groups, columns)
