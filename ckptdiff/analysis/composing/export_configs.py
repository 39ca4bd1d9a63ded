"""hf_quant_config.json and config.json of a subset, byte for byte as ModelOpt 0.47 writes them.

Everything but the lists of modules is the template's: an export of the same base that holds
more, or other, quantized modules. Reading configs, and judging them, is not done here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ckptdiff.formats.documents import JsonObject
from ckptdiff.formats.layouts import MIXED

_DYNAMIC = {"dynamic": False}
_FLOAT8 = _DYNAMIC | {"num_bits": 8, "type": "float"}
_FLOAT4 = _DYNAMIC | {"num_bits": 4, "type": "float"}
_INT8 = _DYNAMIC | {"num_bits": 8, "type": "int"}
_INT4 = _DYNAMIC | {"num_bits": 4, "type": "int"}
_CHANNEL = {"strategy": "channel"}


def exclude_modules(unquantized: Iterable[str], quantized: Iterable[str]) -> list[str]:
    """`exclude_modules`, sorted: for each unquantized module the shortest pattern `P*` or `P.*`
    that matches no quantized one, P being a beginning of its name up to a dot; else its name.

    >>> exclude_modules(["lm_head", "layers.0.mlp", "layers.1.mlp"], ["layers.1.attn"])
    ['layers.0*', 'layers.1.mlp*', 'lm_head']
    """
    names = set(quantized)
    beginnings = {name[:end] for name in names for end in range(len(name) + 1)}
    return sorted({_pattern(module, names, beginnings) for module in unquantized})


def _pattern(module: str, names: set[str], beginnings: set[str]) -> str:
    for at, char in enumerate(module):
        if char == ".":
            prefix = module[:at]
            if prefix not in beginnings:
                return f"{prefix}*"
            if prefix not in names and f"{prefix}." not in beginnings:
                return f"{prefix}.*"
    return module


def quant_document(
    template: JsonObject, layers: Mapping[str, JsonObject], unquantized: Collection[str]
) -> dict[str, Any]:
    """hf_quant_config.json. `layers` maps each quantized module, in the order of the model, to
    what MIXED_PRECISION would list of it; one algorithm of all needs no listing."""
    quantization = dict(template["quantization"])
    if str(quantization.get("quant_algo")).upper() != MIXED:
        quantization["exclude_modules"] = exclude_modules(unquantized, layers)
        return {**template, "quantization": quantization}
    distinct = {json.dumps(layer): layer for layer in layers.values()}
    quantization["quantized_layers"] = dict(layers)
    if len(distinct) == 1:
        (only,) = distinct.values()
        del quantization["quantized_layers"]
        quantization |= dict(only)
        quantization["exclude_modules"] = exclude_modules(unquantized, layers)
    return {**template, "quantization": quantization}


def model_document(template: JsonObject, quant: JsonObject) -> dict[str, Any]:
    """config.json: the template's with the quantization that `quant` (hf_quant_config.json)
    states."""
    quantization = quant["quantization"]
    before = template.get("quantization_config")
    if isinstance(before, dict) and before.get("quant_algo") == quantization.get("quant_algo"):
        after = dict(before)
        after["ignore"] = quantization.get("exclude_modules", [])
        if "quantized_layers" in quantization:
            after["config_groups"] = _groups(quantization["quantized_layers"])
            after["quantized_layers"] = quantization["quantized_layers"]
    else:
        after = _converted(quant)
    return {**template, "quantization_config": after}


def document_bytes(document: JsonObject) -> bytes:
    """A config as ModelOpt writes it: four spaces, ASCII, no newline at the end."""
    return json.dumps(document, indent=4).encode("ascii")


def _converted(quant: JsonObject) -> dict[str, Any]:
    """`quantization_config` of config.json for the given hf_quant_config.json."""
    quantization = quant["quantization"]
    algorithm = quantization.get("quant_algo")
    found: dict[str, Any] = {}
    if algorithm in ("FP8", "NVFP4", "W4A16_NVFP4"):
        group = _group(algorithm, quantization.get("group_size"))
        found["config_groups"] = {"group_0": group | {"targets": ["Linear"]}}
    elif "quantized_layers" in quantization:
        found["config_groups"] = _groups(quantization["quantized_layers"])
        found["quantized_layers"] = quantization["quantized_layers"]
    found["ignore"] = quantization.get("exclude_modules", [])
    found["quant_algo"] = algorithm
    if kv_cache := quantization.get("kv_cache_quant_algo"):
        found["kv_cache_scheme"] = dict(_FLOAT8) if kv_cache == "FP8" else kv_cache
    if "producer" in quant:
        found["producer"] = quant["producer"]
    return found | {"quant_method": "modelopt"}


def _groups(layers: Mapping[str, JsonObject]) -> dict[str, Any]:
    """`config_groups` of MIXED_PRECISION: one for each algorithm, in order of appearance."""
    targets: dict[str, tuple[JsonObject, list[str]]] = {}
    for name, layer in layers.items():
        targets.setdefault(json.dumps(layer, sort_keys=True), (layer, []))[1].append(name)
    return {
        f"group_{number}": _group(layer.get("quant_algo"), layer.get("group_size"))
        | {"targets": sorted(names)}
        for number, (layer, names) in enumerate(targets.values())
    }


def _group(algorithm: str | None, group_size: int | None) -> dict[str, Any]:
    """What one algorithm is in the words of compressed-tensors."""

    def sized(values: dict[str, Any], default: int) -> dict[str, Any]:
        return {**values, "group_size": group_size or default}

    match algorithm:
        case "FP8":
            return {"input_activations": dict(_FLOAT8), "weights": dict(_FLOAT8)}
        case "FP8_PER_CHANNEL_PER_TOKEN":
            return {"input_activations": dict(_FLOAT8), "weights": _FLOAT8 | _CHANNEL}
        case "NVFP4":
            return {"input_activations": sized(_FLOAT4, 16), "weights": sized(_FLOAT4, 16)}
        case "W4A16_NVFP4":
            return {"weights": sized(_FLOAT4, 16)}
        case "W4A16_AWQ":
            return {"weights": sized(_INT4, 128)}
        case "W4A8_AWQ":
            return {"input_activations": sized(_FLOAT8, 128), "weights": sized(_FLOAT4, 128)}
        case "W8A16":
            return {"weights": dict(_INT8)}
        case "W8A8_SQ_PER_CHANNEL":
            return {"input_activations": dict(_INT8), "weights": _INT8 | _CHANNEL}
        case "W4A8_NVFP4_FP8" | "W4A8_MXFP4_FP8":
            return {"input_activations": dict(_FLOAT8), "weights": sized(_FLOAT4, 16)}
        case "MXFP8":
            return {"input_activations": sized(_FLOAT8, 32), "weights": sized(_FLOAT8, 32)}
    return {"quant_algo": algorithm}
