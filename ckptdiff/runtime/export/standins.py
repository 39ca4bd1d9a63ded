"""What ModelOpt has for GPUs alone, in torch: rounding to blocks of FP4 and of MX formats.

A model on a CPU cannot be calibrated in these formats without. Codes and scales of an export
never come from here: ModelOpt packs weights by code that runs anywhere. Only what a search sees,
AWQ's or AutoQuant's, is computed with these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modelopt.torch.quantization.nn.modules import (  # type: ignore[import-untyped]
    tensor_quantizer,
)

from ckptdiff.runtime.failures import is_out_of_memory

_E4M3_MAX, _E4M3_MIN = 448.0, 2.0**-9
_LARGEST = {(2, 1): 6.0, (4, 3): 448.0}
_GRID = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

# Why a kernel of ModelOpt's own was given up in this process; empty when none was.
replaced: list[str] = []


def install(*, cpu: bool) -> None:
    """Replace ModelOpt's kernels in this process: for a model on a CPU at once, on a GPU once
    one of them cannot be built or run."""
    kernel = tensor_quantizer.dynamic_block_quant
    vars(tensor_quantizer)["dynamic_block_quant"] = block_quant if cpu else _unless_it_fails(kernel)
    if not cpu:
        return
    try:
        from modelopt.torch.quantization.nn.modules import quant_conv
    except ImportError:  # older ones have no convolution of their own
        return
    kind = getattr(quant_conv, "_QuantConv3d", None)
    if kind is not None and hasattr(kind, "_should_use_implicit_gemm"):
        # It is entered even where the quantizers are disabled.
        kind._should_use_implicit_gemm = lambda self: False


def _unless_it_fails(kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def rounded(*arguments: Any, **keywords: Any) -> torch.Tensor:
        if not replaced:
            try:
                return kernel(*arguments, **keywords)
            except Exception as error:  # whatever a compiler or a loader may say
                if is_out_of_memory(error):
                    raise
                replaced.append(f"{type(error).__name__} of ModelOpt's kernel")
        return block_quant(*arguments, **keywords)

    return rounded


def block_quant(
    values: torch.Tensor,
    block: int,
    amax: torch.Tensor | None = None,
    bias: object = None,
    num_bits: tuple[int, int] = (2, 1),
    scale_bits: tuple[int, int] | None = None,
    *_: Any,
    **__: Any,
) -> torch.Tensor:
    """`values` [..., n * block] rounded to E2M1 (`num_bits` 2, 1) or E4M3 with a scale a block:
    E4M3 over `amax`, or a power of two (`scale_bits` 8, 0). The gradient passes straight
    through."""
    largest = _LARGEST[tuple(num_bits)]  # type: ignore[index]
    padding = -values.shape[-1] % block
    padded = torch.nn.functional.pad(values.detach().float(), (0, padding))
    blocks = padded.reshape(*padded.shape[:-1], -1, block)
    highest = blocks.abs().amax(-1, keepdim=True)
    if tuple(scale_bits or ()) == (8, 0):
        scale = torch.exp2(torch.ceil(torch.log2(highest / largest)).clamp(-127, 127))
        scale = torch.where(highest == 0, torch.ones_like(scale), scale)
    else:
        whole = padded.abs().amax() if amax is None else amax.detach().float().amax()
        step = (whole / (largest * _E4M3_MAX)).clamp(min=torch.finfo(torch.float32).tiny)
        coded = (highest / (largest * step)).clamp(_E4M3_MIN, _E4M3_MAX)
        scale = coded.to(torch.float8_e4m3fn).float() * step
    scaled = (blocks / scale).clamp(-largest, largest)
    rounded = (_e2m1(scaled) if largest == 6.0 else scaled.to(torch.float8_e4m3fn).float()) * scale
    found = rounded.flatten(-2)[..., : values.shape[-1]].to(values.dtype)
    return values + (found - values).detach()


def _e2m1(values: torch.Tensor) -> torch.Tensor:
    """The nearest of E2M1's values; ties go to the even code."""
    grid = torch.tensor(_GRID, device=values.device)
    middles = (grid[1:] + grid[:-1]) / 2
    size = values.abs()
    # A tie lies on a middle: left of it the lower code, right of it the upper one.
    lower, upper = torch.bucketize(size, middles), torch.bucketize(size, middles, right=True)
    codes = torch.where(lower % 2 == 0, lower, upper)
    return grid[codes] * values.sign()
