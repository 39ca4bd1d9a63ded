"""The child side of the export corpus: quantizes one tiny model with the real ModelOpt.

Nothing here is imported by a test process: importing torch, transformers and ModelOpt takes ten
seconds, so `tests.exports` pays for it once per child. The two stand-ins for CUDA kernels below
are only reached during calibration; the exported codes and scales come from ModelOpt's own code.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
import transformers
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.nn.modules import quant_conv, tensor_quantizer
from transformers import PreTrainedModel

from tests.exports_formats import FORMATS
from tests.exports_models import PATCH_EMBED, Recipe, batch, random_model, recipes

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
PERCENTS = (50, 100)
_TOTAL_BITS = 16.0


def save_base(arch: str, tied: bool, dtype: str, folder: Path) -> None:
    """Write the full-precision model that every export of this host starts from."""
    random_model(arch, tied, DTYPES[dtype]).save_pretrained(folder)


def save_sweep(arch: str, dtype: str, fmt: str, base: Path, root: Path) -> None:
    """Write the schemes of one format below `root`: exact subsets of one ranking."""
    _install_cpu_stand_ins()
    baseline = Baseline.of(arch, fmt, _load(base))
    for percent in PERCENTS:
        scheme = root / baseline.scheme_name(percent)
        model = _quantize(_load(base), baseline, baseline.selected(percent))
        layers = baseline.layers(model)
        export_hf_checkpoint(model, dtype=DTYPES[dtype], export_dir=scheme)
        sensitivity = scheme / "layer-sensitivity"
        sensitivity.mkdir()
        _write(sensitivity / f"{baseline.name}_quant_manifest.json", baseline.manifest(layers))
        coverage = f"{scheme.name}_coverage_from_baseline.json"
        _write(sensitivity / coverage, baseline.coverage(percent))


@dataclass(frozen=True)
class Baseline:
    """The AutoQuant run that a sweep claims to be sliced from; here its ranking is invented."""

    arch: str
    fmt: str
    ranking: tuple[Recipe, ...]
    importances: tuple[float, ...]
    sizes: dict[str, int]

    @classmethod
    def of(cls, arch: str, fmt: str, model: PreTrainedModel) -> Baseline:
        """A seeded shuffle of the recipes the format can follow.

        The convolution of the vision tower comes last, as in real rankings; it is selected by
        top100 and yet never packed.
        """
        groups = list(recipes(arch, FORMATS[fmt].visual))
        draw = random.Random(f"{arch} {fmt}")
        draw.shuffle(groups)
        groups.sort(key=lambda recipe: recipe.leader == PATCH_EMBED)
        importances = sorted(10 ** draw.uniform(-6, -1) for _ in groups)
        sizes = {
            recipe.name: sum(_size(model, name) for name in recipe.live_members)
            for recipe in groups
        }
        return cls(arch, fmt, tuple(groups), tuple(importances), sizes)

    @property
    def name(self) -> str:
        return f"{self.fmt}_autoquant_all_layers_{self.fmt}"

    def scheme_name(self, percent: int) -> str:
        return f"{self.fmt}_autoquant_all_layers_top{percent}_text"

    def selected(self, percent: int) -> tuple[Recipe, ...]:
        return self.ranking[: max(1, math.ceil(len(self.ranking) * percent / 100))]

    def second_format(self) -> tuple[Recipe, ...]:
        """The recipes that a mixed-precision sweep quantizes with its second preset."""
        return self.ranking[1::2] if FORMATS[self.fmt].mixed_preset else ()

    def layers(self, model: PreTrainedModel) -> dict[str, dict[str, object]]:
        """Every converted module: as in real manifests, whether it ends up packed or not."""
        return {
            name: {"quantized": True, "module_type": type(model.get_submodule(live)).__name__}
            for recipe in recipes(self.arch, FORMATS[self.fmt].visual)
            if recipe.leader != PATCH_EMBED
            for name, live in zip(recipe.members, recipe.live_members, strict=True)
        }

    def manifest(self, layers: dict[str, dict[str, object]]) -> dict[str, object]:
        form = FORMATS[self.fmt]
        bits = 11.0
        rank = {recipe.name: index for index, recipe in enumerate(self.ranking, start=1)}
        importance = dict(zip(rank, self.importances, strict=True))
        candidates = [*sorted(filter(None, (form.bits, form.mixed_bits))), _TOTAL_BITS]
        names = [f"CUSTOM_{index}" for index in range(len(candidates) - 1)] + ["NONE"]
        return {
            "scheme": {
                "name": self.name,
                "auto_quantize_bits": bits,
                "auto_quantize_method": "gradient",
                "auto_quantize_score_size": 128,
                "coverage_mode": "full",
                "coverage_fraction": 1.0,
                "quant_formats": list(form.presets),
            },
            "model": f"models/{self.arch}",
            "num_quantized_layers": len(layers),
            "layers": layers,
            "autoquant_state": {
                "keys": ["candidate_stats", "best", "constraints"],
                "constraints": {"effective_bits": bits},
                "score": sum(self.importances) / 2,
                "is_satisfied": True,
            },
            "layer_sensitivity": {
                recipe.name: {
                    "formats": [
                        f"{name}(effective-bits: {width})"
                        for name, width in zip(names, candidates, strict=True)
                    ],
                    "scores": [
                        importance[recipe.name] * (_TOTAL_BITS - width) / (_TOTAL_BITS - form.bits)
                        for width in candidates
                    ],
                    "costs": [
                        self.sizes[recipe.name] * width / _TOTAL_BITS for width in candidates
                    ],
                    "importance": importance[recipe.name],
                    "rank": rank[recipe.name],
                }
                for recipe in recipes(self.arch, form.visual)
            },
            "sensitivity_ranking": [
                {"name": name, "importance": value} for name, value in importance.items()
            ],
        }

    def coverage(self, percent: int) -> dict[str, object]:
        names = [recipe.name for recipe in self.ranking]
        count = len(self.selected(percent))
        folder = f"models/{self.arch}/quantized/{self.name}_text"
        return {
            "baseline_dir": folder,
            "baseline_manifest": f"{folder}/layer-sensitivity/{self.name}_quant_manifest.json",
            "scheme_name": self.scheme_name(percent),
            "top_percent": percent,
            "coverage_fraction": percent / 100,
            "num_layers_total": len(names),
            "num_layers_selected": count,
            "num_layers_dropped": len(names) - count,
            "selected_layers": names[:count],
            "dropped_layers": names[count:],
        }


def quant_config(baseline: Baseline, selected: Sequence[Recipe]) -> dict[str, Any]:
    """The preset, narrowed to the selected recipes. ModelOpt lets the last entry win."""
    form = FORMATS[baseline.fmt]
    preset = getattr(mtq, form.preset)
    entries = [entry for entry in preset["quant_cfg"] if entry["quantizer_name"] != "*visual*"]
    if form.kv_preset:
        entries += getattr(mtq, form.kv_preset)["quant_cfg"]
    if form.mixed_preset:
        entries += _overrides(form.mixed_preset, baseline.second_format())
    dropped = [recipe for recipe in baseline.ranking if recipe not in selected]
    off = [f"{name}.*" for recipe in dropped for name in recipe.live_members]
    off += [] if form.visual else ["*visual*"]
    entries += [{"quantizer_name": pattern, "enable": False} for pattern in off]
    return {**copy.deepcopy(preset), "quant_cfg": copy.deepcopy(entries)}


def _overrides(preset: str, groups: Sequence[Recipe]) -> Iterator[dict[str, Any]]:
    """The weight and input quantizers of another preset, for these recipes alone."""
    for entry in getattr(mtq, preset)["quant_cfg"]:
        kind = entry["quantizer_name"].removeprefix("*")
        if kind in ("weight_quantizer", "input_quantizer"):
            for recipe in groups:
                for name in recipe.live_members:
                    yield {**entry, "quantizer_name": f"{name}.*{kind}"}


def _quantize(
    model: PreTrainedModel, baseline: Baseline, selected: Sequence[Recipe]
) -> PreTrainedModel:
    def calibrate(calibrated: PreTrainedModel) -> None:
        with torch.no_grad():
            calibrated(**batch(baseline.arch, model.dtype), use_cache=False)

    return mtq.quantize(model, quant_config(baseline, selected), forward_loop=calibrate)


def _load(base: Path) -> PreTrainedModel:
    """A fresh copy of a base: an export consumes its model, and copying beats loading."""
    return copy.deepcopy(_cached(base))


@functools.lru_cache(maxsize=2)
def _cached(base: Path) -> PreTrainedModel:
    config = transformers.AutoConfig.from_pretrained(base)
    (architecture,) = config.architectures
    return getattr(transformers, architecture).from_pretrained(base, dtype=config.dtype).eval()


def _size(model: PreTrainedModel, name: str) -> int:
    """The weights below a module; biases are never quantized and cost nothing."""
    parameters = model.get_submodule(name).named_parameters()
    return sum(value.numel() for key, value in parameters if not key.endswith("bias"))


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _install_cpu_stand_ins() -> None:
    """Replace the two CUDA kernels that calibration calls: block fake-quant and its Conv3d.

    ModelOpt enters the NVFP4 convolution even where its quantizers are disabled.
    """
    tensor_quantizer.dynamic_block_quant = _fp4_fake_quant
    quant_conv._QuantConv3d._should_use_implicit_gemm = lambda self: False


def _fp4_fake_quant(values: torch.Tensor, block: int, *_: object, **__: object) -> torch.Tensor:
    """Round each block to E2M1 with an exact scale: close enough for AWQ to search with."""
    grid = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    blocks = values.float().unflatten(-1, (-1, block))
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-12) / grid[-1]
    codes = torch.bucketize((blocks / scale).abs(), (grid[1:] + grid[:-1]) / 2)
    return (grid[codes] * scale * blocks.sign()).flatten(-2).to(values.dtype)
