"""The same model computed in a wider dtype, layer by layer: what its own rounding costs.

A whole copy in the wider dtype may not fit. Weights are widened for the moment in which their
layer runs, large ones in slices, and what flows between layers stays wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.functional import embedding, linear

WIDER = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float32: torch.float64,
}
_SLICE_ELEMENTS = 1 << 24

Forward = Callable[..., Any]


@contextmanager
def computed_in(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within this block the model's layers compute in `dtype`. Its weights stay as they are."""
    with ExitStack() as stack:
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                original = module.forward
                module.forward = _widened(module, original, dtype)
                stack.callback(delattr, module, "forward")
        yield


def _widened(module: torch.nn.Module, original: Forward, dtype: torch.dtype) -> Forward:
    if type(module) is torch.nn.Linear:
        return lambda values: _linear(values, module.weight, module.bias, dtype)
    if type(module) is torch.nn.Embedding:
        padding = module.padding_idx
        return lambda ids: embedding(ids, module.weight, padding).to(dtype)

    def forward(*arguments: Any, **keywords: Any) -> Any:
        own = list(module.named_parameters(recurse=False))
        try:
            for _, parameter in own:
                parameter.data, narrow[id(parameter)] = parameter.data.to(dtype), parameter.data
            return original(
                *(_wide(each, dtype) for each in arguments),
                **{name: _wide(each, dtype) for name, each in keywords.items()},
            )
        finally:
            for _, parameter in own:
                parameter.data = narrow.pop(id(parameter))

    narrow: dict[int, torch.Tensor] = {}
    return forward


def _linear(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    rows = max(1, _SLICE_ELEMENTS // weight.shape[1])
    wide = values.to(dtype)
    parts = [linear(wide, part.to(dtype)) for part in torch.split(weight, rows)]
    result = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
    return result if bias is None else result + bias.to(dtype)


def _wide(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value
