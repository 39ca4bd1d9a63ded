"""Small unsigned integers in a row of 32-bit words, from the lowest bit up, without gaps.

GPTQ, AWQ and compressed-tensors all pack like this; they differ in what is a row, in the order
of the values within a word, and in what a stored number stands for.
"""

from __future__ import annotations

import numpy as np

from ckptdiff.quant.arrays import Array, Codes, MisfitError


def unpack(words: Array, bits: int, count: int) -> Codes:
    """int32 [R, W] -> uint8 [R, count], values of 1 to 8 bits that may cross words.

    Raises `MisfitError` when the words hold fewer than `count` values.
    """
    if not 1 <= bits <= 8:
        raise MisfitError(f"values of {bits} bits")
    rows, width = words.shape
    if width * 32 < count * bits:
        raise MisfitError(f"{width} words for {count} values of {bits} bits")
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8).reshape(rows, 4 * width)
    if bits == 8:
        return octets[:, :count]
    if bits == 4:
        values = np.empty((rows, 8 * width), np.uint8)
        values[:, 0::2] = octets & 15
        values[:, 1::2] = octets >> 4
        return values[:, :count]
    stream = np.unpackbits(octets, axis=1, count=count * bits, bitorder="little")
    return np.packbits(stream.reshape(rows, count, bits), axis=2, bitorder="little")[:, :, 0]
