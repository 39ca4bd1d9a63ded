"""INT weights as GPTQ packs them: along the input, with a scale and zero point a group.

W[o, i] = (q[i, o] - z[g(i), o]) * s[g(i), o], as AutoGPTQ's QuantLinear has it. Files say
`checkpoint_format: gptq` when they store z - 1, which most do, and `gptq_v2` when they store z.
The matrices lie transposed, so a range of outputs is a range of columns here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ckptdiff.quant.arrays import F32, Array, MisfitError
from ckptdiff.quant.packing import unpack


def dequantise(
    qweight: NDArray[np.int32],
    qzeros: NDArray[np.int32],
    scales: Array,
    g_idx: Array | None,
    bits: int,
    first: int = 0,
    v2: bool = False,
) -> F32:
    """Columns [first, first + R) of `qweight` -> float32 rows [R, I] of the weight.

    `qweight` is int32 [I * bits / 32, R], `qzeros` [groups, O * bits / 32], `scales` F16
    [groups, O], both whole; `g_idx` [I] gives each input its group, or None when groups
    are runs of equal length.
    """
    groups, outputs = scales.shape
    inputs = len(qweight) * 32 // bits if g_idx is None else len(g_idx)
    count = qweight.shape[1]
    if first + count > outputs:
        raise MisfitError(f"{outputs} scales for outputs up to {first + count}")
    if len(qzeros) != groups:
        raise MisfitError(f"{len(qzeros)} groups of zeros and {groups} of scales")
    if g_idx is None and (not groups or inputs % groups):
        raise MisfitError(f"{groups} groups for {inputs} inputs")
    group = np.arange(inputs) // (inputs // groups or 1) if g_idx is None else np.asarray(g_idx)
    if inputs and not 0 <= group.min() <= group.max() < groups:
        raise MisfitError(f"group index outside of {groups} groups")
    here = slice(first, first + count)
    stored = unpack(qzeros, bits, outputs)[:, here].T
    # A zero point is as wide as a weight: z - 1 of 0 is stored as all ones, and wraps back.
    zeros = stored if v2 else stored + np.uint8(1) & np.uint8((1 << bits) - 1)
    values = unpack(qweight.T, bits, inputs).astype(np.float32)
    values -= np.take(zeros.astype(np.float32), group, axis=1)
    with np.errstate(all="ignore"):
        values *= np.take(scales[:, here].T.astype(np.float32), group, axis=1)
    return values
