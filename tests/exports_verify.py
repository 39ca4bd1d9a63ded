"""Does a sweep of the corpus hold what its manifests declare?

Deliberately independent of the builders and of ckptdiff: it reads safetensors by hand, expands
recipe names by their spelling, and states the tensors of each format as a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Modules = dict[str, dict[str, "Tensor"]]
_GROUPS = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj")}
_CACHE_SCALES = ("k_scale", "v_scale")
_SCALES = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
_FOLDED = {
    "int4_awq": r"layernorm\.weight$",
    "w4a8_awq": r"layernorm\.weight$",
    "nvfp4_awq": r"layernorm\.weight$|\.up_proj\.weight$",
}


@dataclass(frozen=True)
class Tensor:
    """A stored tensor, bytes and all."""

    dtype: str
    shape: Shape
    data: bytes


@dataclass(frozen=True)
class Layout:
    """The tensors of a quantized module whose base weight is [rows, columns].

    `smoothed` names the projections that keep a pre_quant_scale, in the host's dtype; ModelOpt
    never smooths fused experts.
    """

    algo: str
    weight: str
    packed: Callable[[int, int], Shape]
    scale: str
    scales: Callable[[int, int], Shape]
    scalars: tuple[str, ...] = ()
    smoothed: tuple[str, ...] = ()

    def signature(self, name: str, base: Tensor) -> dict[str, tuple[str, Shape]]:
        """Dtype and shape of every tensor but the bias."""
        rows, columns = base.shape
        smoothed = name.rpartition(".")[2] in self.smoothed and ".experts." not in name
        return {
            "weight": (self.weight, self.packed(rows, columns)),
            "weight_scale": (self.scale, self.scales(rows, columns)),
            **dict.fromkeys(self.scalars, ("F32", ())),
            **({"pre_quant_scale": (base.dtype, (columns,))} if smoothed else {}),
        }


def _whole(rows: int, columns: int) -> Shape:
    return (rows, columns)


def _half_columns(rows: int, columns: int) -> Shape:
    return (rows, columns // 2)


def _half_rows(rows: int, columns: int) -> Shape:
    return (rows // 2, columns)


def _scalar(rows: int, columns: int) -> Shape:
    return ()


def _per_row(rows: int, columns: int) -> Shape:
    return (rows,)


def _tiles(rows: int, columns: int) -> Shape:
    """Tiles of 128x128, partial at the edges; a matrix of a single tile has a scalar scale."""
    down, across = -(-rows // 128), -(-columns // 128)
    return () if down == across == 1 else (down, 1, across, 1)


def _blocks(size: int) -> Callable[[int, int], Shape]:
    return lambda rows, columns: (rows, columns // size)


_EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LAST = ("o_proj", "down_proj")
_BOTH = ("input_scale", "weight_scale_2")
_FP8 = Layout("FP8", "F8_E4M3", _whole, "F32", _scalar, _BOTH[:1])
_ROWS = Layout("FP8_PER_CHANNEL_PER_TOKEN", "F8_E4M3", _whole, "F32", _per_row)
_NVFP4 = Layout("NVFP4", "U8", _half_columns, "F8_E4M3", _blocks(16), _BOTH)
# Llama's down_proj hands its pre_quant_scale on to up_proj, Qwen2.5-VL's keeps it.
_NVFP4_AWQ = replace(_NVFP4, algo="NVFP4_AWQ", smoothed=_LAST[:1])
_INT8 = "W8A8_SQ_PER_CHANNEL"
LAYOUTS = {
    "fp8": (_FP8,),
    "fp8_kv": (_FP8,),
    "fp8_pcpt": (_ROWS,),
    "fp8_pb_wo": (Layout("fp8_pb_wo", "F8_E4M3", _whole, "F32", _tiles),),
    "int8": (Layout(_INT8, "I8", _whole, "F32", _per_row, _BOTH[:1]),),
    "int8_sq": (Layout(_INT8, "I8", _whole, "F32", _per_row, _BOTH[:1], _EVERY),),
    "int8_wo": (Layout("W8A16", "I8", _whole, "F32", _per_row),),
    "int4_awq": (Layout("W4A16_AWQ", "U8", _half_rows, "F32", _blocks(128), (), _LAST),),
    "w4a8_awq": (Layout("W4A8_AWQ", "U8", _half_rows, "F32", _blocks(128), _BOTH, _LAST),),
    "nvfp4": (_NVFP4,),
    "w4a16_nvfp4": (Layout("W4A16_NVFP4", "U8", _half_columns, "F8_E4M3", _blocks(16), _BOTH[1:]),),
    "mxfp8": (Layout("MXFP8", "F8_E4M3", _whole, "U8", _blocks(32)),),
    "mxfp4": (Layout("mxfp4", "U8", _half_columns, "U8", _blocks(32)),),
    "mixed": (_FP8, _NVFP4),
    "nvfp4_awq": (_NVFP4_AWQ, replace(_NVFP4_AWQ, smoothed=_LAST)),
    "w4a8_mxfp4_fp8": (Layout("W4A8_MXFP4_FP8", "U8", _half_columns, "U8", _blocks(32)),),
    "w4a8_nvfp4_fp8": (
        Layout("W4A8_NVFP4_FP8", "U8", _half_columns, "F8_E4M3", _blocks(32), _BOTH),
    ),
}


def problems(root: Path, fmt: str) -> Iterator[str]:
    """What is wrong with a sweep, one line a problem."""
    schemes = sorted(root.iterdir())
    if len(schemes) != 2:
        yield f"{root}: {len(schemes)} schemes"
    base = _read(root.parent / "base")
    for scheme in schemes:
        for line in _scheme_problems(scheme, fmt, base):
            yield f"{root.parent.name}/{fmt}/{scheme.name}: {line}"


def _scheme_problems(scheme: Path, fmt: str, base: dict[str, Tensor]) -> Iterator[str]:
    tensors = _read(scheme)
    modules, base_modules = _modules(tensors), _modules(base)
    declared = _declared(scheme, base_modules)
    quantized = {name for name, parts in modules.items() if {"weight", "weight_scale"} <= {*parts}}
    if quantized != declared:
        yield f"declared and actual set differ in {sorted(quantized ^ declared)}"
    for name in sorted(quantized):
        found = {
            part: (tensor.dtype, tensor.shape)
            for part, tensor in modules[name].items()
            if part not in ("bias", *_CACHE_SCALES)
        }
        original = base_modules[name]["weight"]
        expected = [layout.signature(name, original) for layout in LAYOUTS[fmt]]
        if found not in expected:
            yield f"{name} holds {found}, not {expected}"
    packed = {f"{name}.weight" for name in quantized}
    yield from _copy_problems(tensors, base, packed, fmt)
    yield from _scale_problems({n: t for n, t in tensors.items() if n not in base}, fmt)
    yield from _config_problems(scheme, fmt, quantized, base_modules)


def _copy_problems(
    tensors: dict[str, Tensor], base: dict[str, Tensor], packed: set[str], fmt: str
) -> Iterator[str]:
    """All that is not packed comes from base bit by bit, norms that took up a scale aside."""
    folded = re.compile(_FOLDED.get(fmt, "$^"))
    for name, tensor in base.items():
        if name not in tensors:
            yield f"{name} was not exported"
        elif name not in packed and tensors[name] != tensor and not folded.search(name):
            yield f"{name} differs from base"


def _scale_problems(added: dict[str, Tensor], fmt: str) -> Iterator[str]:
    allowed = (*_SCALES, *(_CACHE_SCALES if fmt == "fp8_kv" else ()))
    for name, tensor in added.items():
        if name.rpartition(".")[2] not in allowed:
            yield f"{name} is neither in base nor a scale"
        elif not _is_sound(tensor):
            yield f"{name} holds a scale that is zero or not finite"


def _is_sound(tensor: Tensor) -> bool:
    if tensor.dtype == "U8":
        return 255 not in tensor.data
    if tensor.dtype == "F8_E4M3":
        return not any(code & 0x7F in (0, 0x7F) for code in tensor.data)
    if tensor.dtype == "BF16":
        values = (np.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(tensor.data, "<f2" if tensor.dtype == "F16" else "<f4")
    return bool(np.isfinite(values).all() and (values > 0).all())


def _config_problems(scheme: Path, fmt: str, quantized: set[str], base: Modules) -> Iterator[str]:
    quantization = _json(scheme / "hf_quant_config.json")["quantization"]
    config = _json(scheme / "config.json")["quantization_config"]
    layouts = LAYOUTS[fmt]
    algos = {layout.algo for layout in layouts}
    algo = layouts[0].algo if len(algos) == 1 else "MIXED_PRECISION"
    if not quantization["quant_algo"] == config["quant_algo"] == algo:
        yield f"quant_algo {quantization['quant_algo']} and {config['quant_algo']}, not {algo}"
    if quantization["kv_cache_quant_algo"] != ("FP8" if fmt == "fp8_kv" else None):
        yield f"kv_cache_quant_algo {quantization['kv_cache_quant_algo']}"
    if algo == "MIXED_PRECISION":
        listed = quantization["quantized_layers"]
        fused = {name.removesuffix(".experts") for name in listed if name.endswith(".experts")}
        used = {entry["quant_algo"] for entry in listed.values()}
        named = {name for name in base if name in listed or name.partition(".experts.")[0] in fused}
        if named != quantized or used != algos:
            yield f"quantized_layers names {sorted(named ^ quantized)} amiss, algos {used}"
        return
    patterns = quantization["exclude_modules"]
    if patterns != config["ignore"]:
        yield "exclude_modules and ignore differ"
    excluded = {name for name in base if any(fnmatch(name, pattern) for pattern in patterns)}
    linears = {name for name, parts in base.items() if len(parts["weight"].shape) == 2}
    if excluded & linears != linears - quantized:
        yield f"exclude_modules is wrong about {sorted(excluded & linears ^ linears - quantized)}"


def _declared(scheme: Path, base: Modules) -> set[str]:
    """The selected recipes of the coverage manifest as modules on disk, convolutions left out."""
    coverage = _json(scheme / f"layer-sensitivity/{scheme.name}_coverage_from_baseline.json")
    (manifest,) = (scheme / "layer-sensitivity").glob("*_quant_manifest.json")
    ranking = [entry["name"] for entry in _json(manifest)["sensitivity_ranking"]]
    if [*coverage["selected_layers"], *coverage["dropped_layers"]] != ranking:
        raise ValueError(f"{scheme}: selected and dropped layers are not the ranking")
    names = {name for recipe in coverage["selected_layers"] for name in _expand(recipe, base)}
    return {name for name in names if len(base[name]["weight"].shape) == 2}


def _expand(recipe: str, base: Modules) -> Iterator[str]:
    leader = re.sub(r"^language_model\.", "model.", recipe.removesuffix(".quant_recipe"))
    parent, _, last = leader.rpartition(".")
    if last == "experts":
        yield from (name for name in base if name.startswith(f"{leader}."))
    else:
        yield from (f"{parent}.{member}" for member in _GROUPS.get(last, (last,)))


def _modules(tensors: dict[str, Tensor]) -> Modules:
    modules: Modules = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensor
    return modules


def _read(checkpoint: Path) -> dict[str, Tensor]:
    raw = (checkpoint / "model.safetensors").read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:size])
    header.pop("__metadata__", None)
    return {
        name: Tensor(
            entry["dtype"],
            tuple(entry["shape"]),
            raw[size + entry["data_offsets"][0] : size + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
