"""FP8 weights as DeepSeek-V3 publishes them: `weight_scale_inv` for each 128x128 block.

The name notwithstanding, the scale multiplies: W = w * s, as its `weight_dequant` kernel has it.
"""

from __future__ import annotations

import numpy as np

from ckptdiff.quant import fp8
from ckptdiff.quant.arrays import F32, Array, Codes, Scales


def dequantise(codes: Codes, scale_inv: Array, first: int = 0, block: int = fp8.BLOCK) -> F32:
    """F8_E4M3 codes [R, I] of rows from `first` on, float32 [O/128, I/128] -> float32 [R, I].

    Both counts of blocks are rounded up; `block` is `weight_block_size` where it is another.
    """
    with np.errstate(all="ignore"):
        return fp8.dequantise_block(codes, Scales(scale_inv), first, block)
