"""`mtq.quantize` of exactly the modules that an order selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import modelopt.torch.quantization as mtq  # type: ignore[import-untyped]
import torch
from transformers import PreTrainedModel

from ckptdiff.records.export import ExportOrder
from ckptdiff.runtime.export.calibration import Inputs, Loader, forward
from ckptdiff.runtime.export.modules import Parts
from ckptdiff.runtime.export.presets import Config, narrowed, preset
from ckptdiff.runtime.export.progress import Progress


def quantize(
    model: PreTrainedModel, order: ExportOrder, batches: Sequence[Inputs], progress: Progress
) -> PreTrainedModel:
    """The model with quantizers, calibrated. Every module that is not selected is disabled by
    its full name. Raises `UsageError` when the order does not fit the model."""
    calibrate = calibration(batches, progress)
    with progress.during("quantize", None, "modules"):
        config = _config(model, order)
        return mtq.quantize(model, config, forward_loop=calibrate)  # type: ignore[no-any-return]


def calibration(batches: Sequence[Inputs], progress: Progress) -> Callable[[PreTrainedModel], None]:
    """The loop that shows a model all batches, for its quantizers to watch."""
    loader = Loader(batches, ["calibrate"], progress)

    @torch.no_grad()
    def calibrate(model: PreTrainedModel) -> None:
        for inputs in loader:
            forward(model, inputs)

    return calibrate


def _config(model: PreTrainedModel, order: ExportOrder) -> Config:
    parts = Parts(model)
    chosen: dict[str, str] = {}
    for each in order.presets:
        keys = parts.names.keys() if each.modules is None else each.modules
        chosen |= dict.fromkeys(parts.chosen(keys), each.name)
    first = order.presets[0].name
    return narrowed(
        preset(first),
        list(chosen),
        parts.others(chosen),
        more={module: preset(name) for module, name in chosen.items() if name != first},
        kv_cache=preset(order.kv_cache) if order.kv_cache else None,
        no_cache=without_cache(model),
    )


def beside_text(model: PreTrainedModel, order: ExportOrder) -> int:
    """How many of an order's modules no text flows through: those of vision towers."""
    parts = Parts(model)
    towers = tuple(f"{name}." for name in without_cache(model))
    return sum(
        name.startswith(towers)
        for each in order.presets
        for name in parts.chosen(parts.names.keys() if each.modules is None else each.modules)
    )


def without_cache(model: PreTrainedModel) -> tuple[str, ...]:
    """The topmost modules beside the one that decodes text: their attentions cache nothing."""
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    inside = {id(module) for module in decoder.modules()}
    above = [
        name
        for name, module in model.named_modules()
        if any(each is decoder for each in module.modules())
    ]
    return tuple(
        f"{name}.{child}" if name else child
        for name in above
        for child, module in model.get_submodule(name).named_children()
        if id(module) not in inside and not any(each is decoder for each in module.modules())
    )
