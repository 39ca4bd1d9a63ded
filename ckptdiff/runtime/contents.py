"""The tensors of a checkpoint as the values that a model takes: dequantised, chunk by chunk.

A value has the name of the parameter it is for, as the checkpoint spells it. Where values go is
decided by `places`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from ckptdiff.analysis.quantization import lacking_scales
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.errors import UsageError
from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.quant.arrays import Rows, Scales
from ckptdiff.quant.registry import CODINGS, dequantised
from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName, Suffix
from ckptdiff.runtime.foreign import foreign_contents
from ckptdiff.runtime.values import Chunks, Value, as_torch, odd, plain

# Layouts whose values are codes times a scale, of the tensor or of the row.
_PRODUCTS: tuple[LayoutName, ...] = ("fp8", "fp8-channel", "int8")
# Scales of a KV cache, which is not simulated, belong to no weight.
_OF_CACHE: tuple[Suffix, ...] = ("k_scale", "v_scale")


def contents(scheme: SchemeEvidence, *, raw: bool = False, smooth: bool = True) -> dict[str, Value]:
    """name of a parameter on disk -> its value, for everything that the checkpoint holds.

    `raw` gives codes as if they were values, as loaders do that ignore scales. `smooth` False
    leaves out the pre_quant_scale of a weight, for models that put it on the input instead.
    Raises `UsageError` naming a tensor that cannot be understood.
    """
    if scheme.foreign and (raw or not smooth):
        raise UsageError(
            f"{scheme.checkpoint.path} was quantized by {scheme.foreign}",
            "Ignoring scales and rounding inputs are for exports of ModelOpt.",
        )
    if scheme.foreign:
        return foreign_contents(scheme)
    for key, suffix in () if raw else lacking_scales(scheme):
        if suffix not in _OF_CACHE:
            weight = scheme.coverage.modules[key].weight
            raise odd(scheme, weight, f"is quantized and comes without {suffix}")
    quantized = {
        module.weight: module for module in scheme.coverage.modules.values() if module.quantized
    }
    found: dict[str, Value] = {}
    for name, tensor, shard in scheme.checkpoint.items():
        module = quantized.get(name)
        split = scale_suffix(name)
        if split is not None:
            if not raw and split[1] not in _OF_CACHE and f"{split[0]}.weight" not in quantized:
                raise odd(scheme, name, "is a scale of no quantized weight")
        elif module is None or raw:
            found[name] = plain(scheme, name, tensor, shard)
        else:
            found[name] = _quantized(scheme, module, tensor, shard, smooth)
    return found


def _quantized(
    scheme: SchemeEvidence,
    module: Module,
    tensor: Tensor,
    shard: Shard,
    smooth: bool,
) -> Value:
    layout = scheme.layouts.get(module.key)
    if layout is None or not layout.names or layout.missing:
        missing = layout.missing[0] if layout and layout.missing else "a scale of a known format"
        raise odd(scheme, module.weight, f"is quantized and comes without {missing}")
    if layout.misfits:
        misfit = layout.misfits[0]
        raise odd(scheme, misfit.scale.name, f"is {misfit.actual}, expected {misfit.expected}")
    coding = CODINGS[layout.names[0]]
    used: tuple[Suffix, ...] = ("weight_scale", "weight_scale_2", "pre_quant_scale")
    names = [scheme.scales[module.name][s].name for s in used if s in scheme.scales[module.name]]
    digests = [scheme.digests.get(name) for name in (module.weight, *names)]
    rows, columns = tensor.shape
    return Value(
        shape=(rows * coding.rows, columns * coding.columns),
        key=None if None in digests else (layout.names[0], smooth, *digests),
        tensor=module.weight,
        shard=shard,
        chunks=partial(
            _dequantised, scheme, module.name, layout.names[0], shard, module.weight, smooth
        ),
    )


def _dequantised(
    scheme: SchemeEvidence,
    module: str,
    layout: LayoutName,
    shard: Shard,
    weight: str,
    smooth: bool,
    reader: TensorReader,
    elements: int,
    device: torch.device,
) -> Chunks:
    scales = reader.scales(scheme, module)
    if not smooth:
        scales = Scales(scales.weight_scale, scales.weight_scale_2)
    stored = reader.rows(shard, weight, elements)
    if layout in _PRODUCTS and device.type != "cpu":
        yield from products(stored, shard.tensors[weight].dtype, scales, device)
        return
    for first, values in dequantised(layout, stored, scales):
        yield first, torch.from_numpy(np.ascontiguousarray(values))


def products(stored: Rows, dtype: str, scales: Scales, device: torch.device) -> Chunks:
    """Codes times scales, computed on `device`: a quarter of the bytes go there, and the same
    float32 products come out as on a processor. `scales` has one scale, or one a row."""
    # Copied: torch warns of memory that it may not write, as that of a mapped file.
    scale = torch.tensor(scales.weight_scale.reshape(-1, 1)).to(device)
    smoothing = None
    if scales.pre_quant_scale is not None:
        smoothing = torch.from_numpy(scales.pre_quant_scale.reshape(-1).astype(np.float32))
        smoothing = smoothing.to(device)
    for first, codes in stored.chunks():
        values = as_torch(codes, dtype).to(device).to(torch.float32)
        values *= scale if len(scale) == 1 else scale[first : first + len(values)]
        yield first, values if smoothing is None else values.mul_(smoothing)
