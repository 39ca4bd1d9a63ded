"""INT4 weights as AutoAWQ packs them (GEMM): along the output, in an order of their own.

W[o, i] = (q[i, o] - z[g(i), o]) * s[g(i), o], groups being runs of inputs of equal length.
The matrices lie transposed, so a range of outputs is a range of columns here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant.arrays import F32, Array, Codes, MisfitError
from ckptdiff.quant.packing import unpack

PER_WORD = 8
# Output k of a word lies in nibble _NIBBLE[k]: the inverse of AutoAWQ's [0, 2, 4, 6, 1, 3, 5, 7].
_NIBBLE = np.array([0, 4, 1, 5, 2, 6, 3, 7])


def dequantise(
    qweight: NDArray[np.int32], qzeros: NDArray[np.int32], scales: Array, first: int = 0
) -> F32:
    """Columns [first, first + C) of `qweight` -> float32 rows [8 C, I] of the weight.

    `qweight` is int32 [I, C], `qzeros` int32 [groups, O / 8] and `scales` F16 [groups, O],
    both whole.
    """
    inputs, words = qweight.shape
    groups, outputs = scales.shape
    if PER_WORD * (first + words) > outputs:
        raise MisfitError(f"{outputs} scales for outputs up to {PER_WORD * (first + words)}")
    if len(qzeros) != groups or not groups or inputs % groups:
        raise MisfitError(f"{groups} groups of scales, {len(qzeros)} of zeros, {inputs} inputs")
    here = slice(PER_WORD * first, PER_WORD * (first + words))
    zeros = _ordered(qzeros[:, first : first + words]).T.astype(np.float32)
    values = _ordered(qweight).T.astype(np.float32, order="C")
    length = inputs // groups
    values -= np.repeat(zeros, length, axis=1)
    with np.errstate(all="ignore"):
        values *= np.repeat(scales[:, here].T.astype(np.float32), length, axis=1)
    return values


def _ordered(words: NDArray[np.int32]) -> Codes:
    """int32 [R, W] -> uint8 [R, 8 W], outputs in their order."""
    rows, width = words.shape
    nibbles = unpack(words, 4, PER_WORD * width).reshape(rows, width, PER_WORD)
    return nibbles[:, :, _NIBBLE].reshape(rows, PER_WORD * width)
