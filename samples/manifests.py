"""The two JSON manifests that go with a sweep, and the names and groups they speak in.

No torch here: a manifest is a pure function of what AutoQuant reports.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Json = dict[str, Any]

FAMILY = "fp8_autoquant_all_layers"
FORMAT = "fp8"
FORMAT_NAME = "FP8_ALL_LAYERS_CFG"
FOLDER = "layer-sensitivity"
BASELINE_MANIFEST = f"{FAMILY}_{FORMAT}_quant_manifest.json"
RECIPE = ".quant_recipe"
# AutoQuant decides for linears that are fused at inference together, and names the group's first.
GROUPS = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj")}


def baseline_name(data: str) -> str:
    """The folder of the AutoQuant export that was calibrated on `data`."""
    return f"{FAMILY}_{FORMAT}_{data}"


def subset_name(percent: int, data: str) -> str:
    """The folder of the scheme that quantizes the least sensitive `percent` of the recipes."""
    return f"{FAMILY}_top{percent}_{data}"


def manifest_name(live_name: str) -> str:
    """A live module's name as manifests write it."""
    return live_name.removeprefix("model.")


def members(recipe: str) -> tuple[str, ...]:
    """The modules of a recipe, by their manifest names."""
    parent, dot, leader = recipe.removesuffix(RECIPE).rpartition(".")
    return tuple(f"{parent}{dot}{name}" for name in GROUPS.get(leader, (leader,)))


def _sensitivity(stats: Json) -> dict[str, Json]:
    """Formats, scores and costs of every eligible recipe; rank 1 is the least sensitive.

    A disabled layer has a recipe too, but nothing to choose: its only format is NONE.
    """
    stats = {name: entry for name, entry in stats.items() if len(entry["formats"]) > 1}
    importance = {name: max(entry["scores"]) for name, entry in stats.items()}
    ranking = sorted(stats, key=importance.__getitem__)
    rank = {name: position for position, name in enumerate(ranking, start=1)}
    return {
        manifest_name(name): {
            "formats": [str(recipe) for recipe in entry["formats"]],
            "scores": entry["scores"],
            "costs": entry["costs"],
            "importance": importance[name],
            "rank": rank[name],
        }
        for name, entry in stats.items()
    }


def baseline_manifest(
    state: Json, modules: dict[str, str], effective_bits: float, score_size: int
) -> Json:
    """The manifest of an AutoQuant run: `state` is its result, `modules` maps names to types.

    Like the manifests found in the wild it calls every converted module quantized, also those
    that AutoQuant left in BF16. What is quantized is to be read from the weights.
    """
    sensitivity = _sensitivity(state["candidate_stats"])
    ranking = sorted(sensitivity, key=lambda name: sensitivity[name]["rank"])
    best = state["best"]
    return {
        "scheme": {
            "name": f"{FAMILY}_{FORMAT}",
            "auto_quantize_bits": effective_bits,
            "auto_quantize_method": "gradient",
            "auto_quantize_score_size": score_size,
            "coverage_mode": "full",
            "coverage_fraction": 1.0,
            "quant_formats": [FORMAT_NAME],
        },
        "num_quantized_layers": len(modules),
        "layers": {
            manifest_name(name): {"quantized": True, "module_type": module_type}
            for name, module_type in modules.items()
        },
        "autoquant_state": {
            "keys": list(state),
            "constraints": {"effective_bits": best["constraints"]["effective_bits"]},
            "score": float(best["score"]),
            "is_satisfied": bool(best["is_satisfied"]),
        },
        "layer_sensitivity": sensitivity,
        "sensitivity_ranking": [
            {"name": name, "importance": sensitivity[name]["importance"]} for name in ranking
        ],
    }


def coverage_manifest(baseline: Json, percent: int, data: str) -> Json:
    """Which recipes a topNN scheme selects from the baseline's ranking, and which it drops."""
    ranking = [entry["name"] for entry in baseline["sensitivity_ranking"]]
    fraction = percent / 100
    count = max(1, math.ceil(percent * len(ranking) / 100))
    baseline_dir = f"sweep/{baseline_name(data)}"
    return {
        "baseline_dir": baseline_dir,
        "baseline_manifest": f"{baseline_dir}/{FOLDER}/{BASELINE_MANIFEST}",
        "scheme_name": subset_name(percent, data),
        "top_percent": percent,
        "coverage_fraction": fraction,
        "num_layers_total": len(ranking),
        "num_layers_selected": count,
        "num_layers_dropped": len(ranking) - count,
        "selected_layers": ranking[:count],
        "dropped_layers": ranking[count:],
    }


def expand(recipes: Iterable[str]) -> set[str]:
    """The modules of several recipes."""
    return {module for recipe in recipes for module in members(recipe)}


def read(path: Path) -> Json:
    """A manifest from disk."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(scheme: Path, name: str, manifest: Json) -> None:
    """Put a manifest into a scheme's `layer-sensitivity` folder."""
    folder = scheme / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def write_coverage(scheme: Path, baseline: Json, percent: int, data: str) -> None:
    """Put a topNN scheme's coverage manifest beside a copy of its baseline's manifest."""
    write(scheme, BASELINE_MANIFEST, baseline)
    name = f"{subset_name(percent, data)}_coverage_from_baseline.json"
    write(scheme, name, coverage_manifest(baseline, percent, data))
