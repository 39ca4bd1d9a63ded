"""Tiny checkpoints from a spec, byte by byte, without torch: the raw material of the tests.

The default sweep is a healthy one: a base and FP8 schemes of a Llama-like model, nested
along one ranking, exactly as their manifests say.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ckptdiff
from ckptdiff.records.report import CheckReport

BITS = {
    "BF16": 16, "F16": 16, "F32": 32, "F64": 64, "F8_E4M3": 8, "F8_E8M0": 8, "U8": 8, "I8": 8,
    "I64": 64,
}  # fmt: skip

FLOATS = ("BF16", "F16", "F32")
# The most significant byte of an element. Of float32, which scales are in, positive ones.
TOP_BYTES = {
    "BF16": b"\x3c\x3d\xbc\xbd",
    "F16": b"\x2c\x2d\xac\xad",
    "F32": b"\x3c\x3d",
    "F64": b"\x3f",
    "F8_E4M3": bytes(code for code in range(256) if code & 0x7F != 0x7F),
}
LAYERS = 4
HIDDEN = 16
PRODUCER = {"name": "modelopt", "version": "0.47.0"}
BASELINE = "fp8_autoquant_all_layers_fp8"


@dataclass(frozen=True)
class Spec:
    """One tensor: dtype, shape, and its bytes, or a seed that they are made from."""

    dtype: str
    shape: tuple[int, ...]
    seed: str
    raw: bytes | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * BITS[self.dtype] // 8

    def data(self) -> bytes:
        if self.raw is not None:
            return self.raw
        rng = random.Random(self.seed)
        data = bytearray(rng.randbytes(self.nbytes))
        width = BITS[self.dtype] // 8
        if self.dtype in TOP_BYTES:
            # Finite and of ordinary size: random bits would hold NaN and infinities.
            data[width - 1 :: width] = rng.choices(TOP_BYTES[self.dtype], k=len(data) // width)
        return bytes(data)


Tensors = Mapping[str, Spec]


def as_float32(spec: Spec) -> Spec:
    """The same values: a BF16 is the upper half of a float32."""
    halves = spec.data()
    raw = b"".join(b"\0\0" + halves[at : at + 2] for at in range(0, len(halves), 2))
    return Spec("F32", spec.shape, spec.seed, raw)


def modules(layers: int = LAYERS) -> dict[str, tuple[int, int]]:
    """Linear modules of the model under their names on disk, with their shapes."""
    found = {}
    for n in range(layers):
        for leaf in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"model.layers.{n}.self_attn.{leaf}"] = (HIDDEN, HIDDEN)
        for leaf in ("gate_proj", "up_proj"):
            found[f"model.layers.{n}.mlp.{leaf}"] = (2 * HIDDEN, HIDDEN)
        found[f"model.layers.{n}.mlp.down_proj"] = (HIDDEN, 2 * HIDDEN)
    return found


def recipes(layers: int = LAYERS) -> list[str]:
    """The ranking, least sensitive first, in the spelling of baseline manifests."""
    leaves = ("self_attn.o_proj", "mlp.down_proj", "self_attn.q_proj", "mlp.gate_proj")
    return [f"layers.{n}.{leaf}.quant_recipe" for leaf in leaves for n in reversed(range(layers))]


def members(recipe: str) -> list[str]:
    """The modules on disk that a recipe of `recipes` stands for."""
    name = "model." + recipe.removesuffix(".quant_recipe")
    parent, _, leaf = name.rpartition(".")
    group = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj")}
    return [f"{parent}.{member}" for member in group.get(leaf, (leaf,))]


def base_tensors(layers: int = LAYERS) -> dict[str, Spec]:
    """A whole full-precision model with tied embeddings."""
    found = {"model.embed_tokens.weight": Spec("BF16", (32, HIDDEN), "embed")}
    for name, shape in modules(layers).items():
        found[f"{name}.weight"] = Spec("BF16", shape, name)
    for n in range(layers):
        found[f"model.layers.{n}.input_layernorm.weight"] = Spec("BF16", (HIDDEN,), f"norm{n}")
    found["model.norm.weight"] = Spec("BF16", (HIDDEN,), "norm")
    return found


def fp8_tensors(quantized: Sequence[str], layers: int = LAYERS) -> dict[str, Spec]:
    """The model with the modules in `quantized` as FP8 with per-tensor scales."""
    found = dict(base_tensors(layers))
    for name in (name for name in quantized if f"{name}.weight" in found):
        shape = found[f"{name}.weight"].shape
        found[f"{name}.weight"] = Spec("F8_E4M3", shape, f"fp8 {name}")
        found[f"{name}.weight_scale"] = Spec("F32", (), f"scale {name}")
        found[f"{name}.input_scale"] = Spec("F32", (), f"input {name}")
    return found


def write_shard(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file with `tensors` in the order given."""
    header: dict[str, object] = {"__metadata__": dict(metadata or {"format": "pt"})}
    offset = 0
    for name, spec in tensors.items():
        end = offset + spec.nbytes
        header[name] = {
            "dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]
        }  # fmt: skip
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    body = b"".join(spec.data() for spec in tensors.values())
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


def write_weights(path: Path, tensors: Tensors, shards: int = 1) -> None:
    """`tensors` as one file, or as several with an index."""
    if shards == 1:
        write_shard(path / "model.safetensors", tensors)
        return
    names = list(tensors)
    weight_map = {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = names[n * len(names) // shards : (n + 1) * len(names) // shards]
        write_shard(path / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    total = sum(spec.nbytes for spec in tensors.values())
    write_json(
        path / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def config(layers: int = LAYERS, quantization: object = None) -> dict[str, object]:
    found: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "tie_word_embeddings": True,
    }
    if quantization is not None:
        found["quantization_config"] = quantization
    return found


def write_base(path: Path, layers: int = LAYERS, extra: Tensors | None = None) -> Path:
    path.mkdir(parents=True)
    write_weights(path, base_tensors(layers) | dict(extra or {}))
    write_json(path / "config.json", config(layers))
    return path


def baseline_manifest(ranking: Sequence[str], name: str = BASELINE) -> dict[str, object]:
    """A `*_quant_manifest.json` with upstream's keys."""
    formats = ["CUSTOM_0(effective-bits: 8.0)", "NONE(effective-bits: 16.0)"]
    return {
        "scheme": {
            "name": name,
            "auto_quantize_bits": 11.0,
            "auto_quantize_method": "gradient",
            "auto_quantize_score_size": 128,
            "coverage_mode": "full",
            "coverage_fraction": 1.0,
            "quant_formats": ["FP8_ALL_LAYERS_CFG"],
        },
        "num_quantized_layers": len(ranking),
        "layers": {},
        "autoquant_state": {
            "keys": ["candidate_stats", "best", "constraints"],
            "constraints": {"effective_bits": 10.99},
            "score": 0.01,
            "is_satisfied": True,
        },
        "layer_sensitivity": {
            recipe: {
                "formats": formats,
                "scores": [0.01 * rank, 0.0],
                "costs": [256.0, 512.0],
                "importance": 0.01 * rank,
                "rank": rank,
            }
            for rank, recipe in enumerate(ranking, 1)
        },
        "sensitivity_ranking": [
            {"name": recipe, "importance": 0.01 * rank} for rank, recipe in enumerate(ranking, 1)
        ],
    }


def coverage_manifest(
    scheme: str, percent: int, ranking: Sequence[str], baseline: str = BASELINE
) -> dict[str, object]:
    """A `*_coverage_from_baseline.json` with upstream's keys."""
    k = max(1, math.ceil(percent / 100 * len(ranking)))
    return {
        "baseline_dir": f"models/quantized/{baseline}_coco2017",
        "baseline_manifest": f"models/quantized/{baseline}_coco2017/layer-sensitivity/"
        f"{baseline}_quant_manifest.json",
        "scheme_name": scheme,
        "top_percent": percent,
        "coverage_fraction": percent / 100,
        "num_layers_total": len(ranking),
        "num_layers_selected": k,
        "num_layers_dropped": len(ranking) - k,
        "selected_layers": list(ranking[:k]),
        "dropped_layers": list(ranking[k:]),
    }


def excluded(tensors: Tensors) -> list[str]:
    """`exclude_modules`: every unquantized module that a quantizer could have taken."""
    return sorted(
        name.removesuffix(".weight")
        for name, spec in tensors.items()
        if name.endswith(".weight") and len(spec.shape) == 2 and spec.dtype in FLOATS
    )


def write_scheme(
    path: Path,
    tensors: Tensors,
    *,
    manifest: Mapping[str, object] | None = None,
    baseline: Mapping[str, object] | None = None,
    shards: int = 1,
    layers: int = LAYERS,
    algorithm: str = "FP8",
) -> Path:
    """One exported scheme with both configs and the manifests that are given."""
    path.mkdir(parents=True)
    write_weights(path, tensors, shards)
    exclude = excluded(tensors)
    quantization = {
        "quant_method": "modelopt",
        "quant_algo": algorithm,
        "ignore": exclude,
        "producer": PRODUCER,
    }
    write_json(path / "config.json", config(layers, quantization))
    write_json(
        path / "hf_quant_config.json",
        {
            "producer": PRODUCER,
            "quantization": {
                "quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": exclude,
            },
        },
    )  # fmt: skip
    folder = path / "layer-sensitivity"
    if manifest is not None:
        write_json(folder / f"{path.name}_coverage_from_baseline.json", manifest)
    if baseline is not None:
        write_json(folder / f"{BASELINE}_quant_manifest.json", baseline)
    return path


@dataclass(frozen=True)
class SweepSpec:
    """What `write_sweep` writes; change a field for another healthy sweep."""

    percents: tuple[int, ...] = (10, 30, 50, 100)
    layers: int = LAYERS
    shards: int = 1
    name: str = "fp8_autoquant_all_layers_top{percent}_coco2017"
    ranking: tuple[str, ...] = field(default_factory=lambda: tuple(recipes()))

    def scheme(self, percent: int) -> str:
        return self.name.format(percent=percent)

    def selected(self, percent: int) -> list[str]:
        """Modules on disk that topN quantizes."""
        k = max(1, math.ceil(percent / 100 * len(self.ranking)))
        return [module for recipe in self.ranking[:k] for module in members(recipe)]


def write_sweep(root: Path, spec: SweepSpec | None = None) -> Path:
    """`root/base` and `root/quantized/<scheme>` for every percent. Returns the ROOT."""
    spec = spec or SweepSpec()
    write_base(root / "base", spec.layers)
    for percent in spec.percents:
        scheme = spec.scheme(percent)
        write_scheme(
            root / "quantized" / scheme,
            fp8_tensors(spec.selected(percent), spec.layers),
            manifest=coverage_manifest(scheme, percent, spec.ranking),
            baseline=baseline_manifest(spec.ranking),
            shards=spec.shards,
            layers=spec.layers,
        )
    return root / "quantized"


def copy_weights(root: Path, source: int, targets: Sequence[int]) -> None:
    """The founding bug: weights and configs of one scheme under other schemes' manifests."""
    spec = SweepSpec()
    files = [path for path in (root / spec.scheme(source)).iterdir() if path.is_file()]
    for percent in targets:
        for path in files:
            (root / spec.scheme(percent) / path.name).write_bytes(path.read_bytes())


def check(root: Path, **options: object) -> CheckReport:
    """`ckptdiff.check` without CK406, an info that every ModelOpt export gets."""
    return ckptdiff.check(root, ignore=["CK406"], **options)  # type: ignore[arg-type]
