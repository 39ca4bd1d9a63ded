"""Sweeps to repair by an engine that runs ModelOpt: tiny, with a tokenizer, weights still lost.

A stub has the configs and manifests of a scheme and the weights of its base, which is a fault of
its own: every module that should be quantized is not. Exports of the real ModelOpt come from it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.exports_models import random_model, recipes

SAMPLES = Path(__file__).parents[1] / "samples"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
ALGORITHMS: dict[str, dict[str, Any]] = {
    "fp8": {"quant_algo": "FP8"},
    "int8": {"quant_algo": "W8A8_SQ_PER_CHANNEL"},
    "int4_awq": {"quant_algo": "W4A16_AWQ", "group_size": 128},
    "nvfp4": {"quant_algo": "NVFP4", "group_size": 16},
}
ROWS = (
    "The first row of text is short.",
    "def add(a, b):\n    return a + b",
    "A third row, which is a little longer than both of the others together, and then some.",
    "1 2 3 4 5 6 7 8 9",
)


def write_base(folder: Path, tied: bool = False) -> Path:
    """A random Llama of three layers with the tokenizer of the sample model."""
    torch.manual_seed(0)
    model = random_model("llama", tied, torch.bfloat16)
    model.resize_token_embeddings(512, mean_resizing=False)
    model.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(SAMPLES / "base" / name, folder / name)
    return folder


def write_stub(base: Path, root: Path, fmt: str, percent: int) -> Path:
    """A scheme of which nothing but its weights is wrong."""
    family = f"{fmt}_autoquant_all_layers_{fmt}"
    scheme = root / f"{fmt}_autoquant_all_layers_top{percent}"
    shutil.copytree(base, scheme)
    quantization = ALGORITHMS[fmt] | {"kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    producer = {"name": "modelopt", "version": "0.47.0"}
    stated = {"producer": producer, "quantization": quantization}
    _write(scheme / "hf_quant_config.json", stated)
    config = json.loads((scheme / "config.json").read_text())
    stated = ALGORITHMS[fmt] | {"quant_method": "modelopt", "ignore": ["lm_head"]}
    _write(scheme / "config.json", config | {"quantization_config": stated})
    ranking = [recipe.name for recipe in recipes("llama", visual=False)][::-1]
    count = -(-len(ranking) * percent // 100)
    (scheme / "layer-sensitivity").mkdir()
    _write(
        scheme / f"layer-sensitivity/{family}_quant_manifest.json",
        {
            "scheme": {"name": family},
            "sensitivity_ranking": [
                {"name": name, "importance": float(rank)} for rank, name in enumerate(ranking)
            ],
        },
    )
    _write(
        scheme / f"layer-sensitivity/{scheme.name}_coverage_from_baseline.json",
        {
            "baseline_dir": family,
            "baseline_manifest": f"{family}_quant_manifest.json",
            "scheme_name": scheme.name,
            "top_percent": percent,
            "coverage_fraction": percent / 100,
            "num_layers_total": len(ranking),
            "num_layers_selected": count,
            "num_layers_dropped": len(ranking) - count,
            "selected_layers": ranking[:count],
            "dropped_layers": ranking[count:],
        },
    )
    return scheme


def write_rows(path: Path) -> Path:
    """A file of calibration rows."""
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in ROWS))
    return path


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")
