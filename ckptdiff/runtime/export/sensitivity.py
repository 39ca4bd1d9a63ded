"""The documents of a search: its manifest with upstream's keys, and a report for people.

Pure functions of what AutoQuant tells; nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch

from ckptdiff.records.export import ExportOrder
from ckptdiff.runtime.export.modules import manifest_name, recipe_module

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One group that the search decided on. `chosen` is the format that it gave the group,
    `modules` the manifest names of the members."""

    name: str
    modules: tuple[str, ...]
    formats: tuple[str, ...]
    scores: tuple[float, ...]
    costs: tuple[float, ...]
    chosen: str

    @property
    def importance(self) -> float:
        """How much the most aggressive format costs in quality."""
        return max(self.scores)


def ranking(state: State) -> tuple[Recipe, ...]:
    """The groups that could be quantized, the least sensitive first."""
    best = state["best"]["recipe"]
    found = [
        Recipe(
            name=manifest_name(name),
            modules=tuple(manifest_name(module) for module in stats["module_names"]),
            formats=tuple(map(str, stats["formats"])),
            scores=tuple(map(float, stats["scores"])),
            costs=tuple(map(float, stats["costs"])),
            chosen=str(best[name]),
        )
        for name, stats in state["candidate_stats"].items()
        if len(stats["formats"]) > 1
    ]
    return tuple(sorted(found, key=lambda recipe: recipe.importance))


def manifest(
    order: ExportOrder, state: State, recipes: Sequence[Recipe], model: torch.nn.Module, bits: float
) -> dict[str, Any]:
    """`*_quant_manifest.json`, or its like for a part of the layers. Unlike upstream's it says
    of a layer that it is quantized only where it is."""
    layers = {
        manifest_name(name): {"quantized": enabled, "module_type": type(module).__name__}
        for name, module in model.named_modules()
        if (enabled := _enabled(module)) is not None
    }
    rank = {recipe.name: number for number, recipe in enumerate(recipes, 1)}
    groups = len(state["candidate_stats"])
    whole = order.presets[0].modules is None
    best = state["best"]
    return {
        "scheme": {
            "name": order.scheme,
            "auto_quantize_bits": bits,
            "auto_quantize_method": order.score,
            "auto_quantize_score_size": len(order.calibration.rows),
            "coverage_mode": "full" if whole else "listed",
            "coverage_fraction": 1.0 if whole else len(recipes) / groups,
            "quant_formats": [preset.name for preset in order.presets],
        },
        "model": PurePath(order.base).name,
        "num_quantized_layers": sum(bool(layer["quantized"]) for layer in layers.values()),
        "layers": layers,
        "autoquant_state": {
            "keys": list(state),
            "constraints": {"effective_bits": float(best["constraints"]["effective_bits"])},
            "score": float(best["score"]),
            "is_satisfied": bool(best["is_satisfied"]),
        },
        "layer_sensitivity": {
            recipe.name: {
                "formats": list(recipe.formats),
                "scores": list(recipe.scores),
                "costs": list(recipe.costs),
                "importance": recipe.importance,
                "rank": rank[recipe.name],
            }
            for recipe in sorted(recipes, key=lambda recipe: recipe.name)
        },
        "sensitivity_ranking": [
            {"name": recipe.name, "importance": recipe.importance} for recipe in recipes
        ],
    }


def listing(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """`per-layer-sensitivity.json`: a row for each group and format that it could have."""
    return [
        {
            "layer": recipe_module(recipe.name),
            "format": form,
            "sensitivity": score,
            "size_cost": cost,
            "chosen": form == recipe.chosen,
        }
        for recipe in recipes
        for form, score, cost in zip(recipe.formats, recipe.scores, recipe.costs, strict=True)
    ]


def markdown(order: ExportOrder, recipes: Sequence[Recipe], bits: float) -> str:
    """`per-layer-sensitivity.md`: the ranking as a table."""
    lines = [
        f"# Sensitivity of {order.scheme}",
        "",
        f"{len(recipes)} groups of layers, least sensitive first: {order.score} scores over "
        f"{len(order.calibration.rows)} rows of {order.calibration.source}, {bits:g} effective "
        "bits.",
        "",
        "| rank | group | layers | sensitivity | format |",
        "| ---: | :--- | ---: | ---: | :--- |",
    ]
    for number, recipe in enumerate(recipes, 1):
        name = recipe_module(recipe.name)
        form = recipe.chosen.partition("(")[0]
        lines.append(
            f"| {number} | `{name}` | {len(recipe.modules)} | {recipe.importance:.4g} | {form} |"
        )
    return "\n".join(lines) + "\n"


def _enabled(module: torch.nn.Module) -> bool | None:
    """Whether the weights of a converted linear are quantized; None for any other module."""
    if isinstance(module, torch.nn.Embedding):
        return None
    quantizers = [
        quantizer
        for name, child in module.named_children()
        if name == "weight_quantizer" or name.endswith(("_weight_quantizer", "weight_quantizers"))
        for quantizer in (child.children() if isinstance(child, torch.nn.ModuleList) else [child])
    ]
    if not quantizers:
        return None
    # A sequence of quantizers, as W4A8's, is enabled when its first one is.
    return any(_first(quantizer).is_enabled for quantizer in quantizers)


def _first(quantizer: Any) -> Any:
    return quantizer[0] if isinstance(quantizer, torch.nn.Sequential) else quantizer
