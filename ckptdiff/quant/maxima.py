"""Absolute maxima, over everything that a scale may stand for.

They are taken on the bits: without its sign, a float grows with its code read as an integer,
in every dtype, up to infinity and then NaN. So NaN wins, as in PyTorch, and BF16 needs no cast.
"""

from __future__ import annotations

import numpy as np

from ckptdiff.quant.arrays import F32, Array, blocks

# Groups so small that numpy, going through them one by one, would take three times as long.
_HALVED = (16, 32)


def tensor_amax(weight: Array) -> np.float32:
    """The absolute maximum of any array, 0 of an empty one."""
    return np.float32(_values(np.max(_sizes(weight), initial=0), weight)[()])


def row_amax(weight: Array) -> F32:
    """[R, I] -> [R]."""
    return _values(np.max(_sizes(weight), axis=1, initial=0), weight)


def group_amax(weight: Array, group: int) -> F32:
    """[R, I] -> [R, G] over groups of columns, the last one perhaps in part."""
    rows, columns = weight.shape
    sizes = _sizes(weight)
    if not columns:
        return np.zeros((rows, 0), np.float32)
    if columns % group or group not in _HALVED:
        starts = range(0, columns, group)
        return _values(np.maximum.reduceat(sizes, starts, axis=1), weight)
    while group > 1:
        sizes = np.maximum(sizes[:, 0::2], sizes[:, 1::2])
        group //= 2
    return _values(sizes, weight)


def block_amax(weight: Array, first: int, block: int) -> F32:
    """The maxima of the square blocks that rows [first, first + R) touch.

    [R, I] -> [B, ceil(I/block)], its first row being block row `first // block`; the maxima
    of a block that is cut by the range are those of its part.
    """
    rows, columns = weight.shape
    if not rows or not columns:
        return np.zeros((blocks(rows, block), blocks(columns, block)), np.float32)
    starts = [0, *range(block - first % block, rows, block)]
    return np.maximum.reduceat(group_amax(weight, block), starts, axis=0)


def _sizes(weight: Array) -> Array:
    """The bits of the absolute values, which are ordered as the values are."""
    unsigned = np.dtype(f"u{weight.dtype.itemsize}")
    bits = np.ascontiguousarray(weight).view(unsigned)
    sizes: Array = bits & unsigned.type(np.iinfo(unsigned).max >> 1)
    return sizes


def _values(sizes: Array, weight: Array) -> F32:
    return np.asarray(sizes).view(weight.dtype).astype(np.float32)
