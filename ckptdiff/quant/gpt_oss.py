"""MXFP4 experts as GPT-OSS publishes them: `*_blocks` and `*_scales`.

W = e2m1(w) * 2^(e - 127), as transformers' `convert_moe_packed_tensors` has it, which then
transposes each expert; here rows stay outputs. A file has [experts, O, G, 16] and
[experts, O, G]: its first two dimensions are rows.
"""

from __future__ import annotations

from ckptdiff.quant import mx
from ckptdiff.quant.arrays import F32, Codes, MisfitError, Scales


def dequantise(blocks: Codes, scales: Codes, first: int = 0) -> F32:
    """Bytes [R, G, 16] of rows from `first` on, E8M0 codes [rows, G] -> float32 [R, 32 G]."""
    if blocks.ndim != 3 or 2 * blocks.shape[2] != mx.BLOCK:
        raise MisfitError(f"blocks of {list(blocks.shape)} are not of {mx.BLOCK} weights")
    rows, groups, width = blocks.shape
    return mx.dequantise_mxfp4(blocks.reshape(rows, groups * width), Scales(scales), first)
