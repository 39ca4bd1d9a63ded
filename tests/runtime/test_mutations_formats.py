"""One fault planted in a real export of every format: exactly its own code, at its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from build import Spec
from mutate import (
    CONFIGS,
    Mutant,
    coverage_path,
    document,
    excluded,
    flip,
    graft,
    quantization,
    read_tensors,
    reshape,
    tensors,
    weights_of,
)

from ckptdiff.formats.layouts import ALGORITHMS
from ckptdiff.records.finding import Location
from tests.exports import cells

CELLS = [cell for cell in cells("ci") if cell.dtype == "bf16" and not cell.tied]
SINGLE = "model.safetensors"
GROUPS = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj")}

INPUT = ("fp8", "fp8_kv", "int8", "int8_sq", "w4a8_awq", "nvfp4", "mixed", "nvfp4_awq",
         "w4a8_nvfp4_fp8")  # fmt: skip
SECOND = ("w4a8_awq", "nvfp4", "w4a16_nvfp4", "mixed", "nvfp4_awq", "w4a8_nvfp4_fp8")
SMOOTHED = ("int8_sq", "int4_awq", "w4a8_awq", "nvfp4_awq")
FOLDED = ("int4_awq", "w4a8_awq", "nvfp4_awq")
GROUPED = ("int4_awq", "w4a8_awq", "nvfp4", "w4a16_nvfp4", "nvfp4_awq", "mxfp8",
           "w4a8_mxfp4_fp8", "w4a8_nvfp4_fp8", "mixed")  # fmt: skip
# Exports of these look the same, so only the config can say which one it is.
ALIKE = (
    {"MXFP4", "W4A8_MXFP4_FP8"},
    {"NVFP4", "NVFP4_AWQ"},  # where no layer was smoothed
)

pytestmark = pytest.mark.timeout(1500)


@dataclass(frozen=True)
class Fault:
    """`plant` changes a scheme of `percent` and says where that is to be found."""

    code: str
    percent: int
    plant: Callable[[Mutant, Path], list[Location]]
    name: str
    formats: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}-{self.name}"


def quantized(scheme: Path, suffix: str = "weight_scale") -> list[str]:
    """Modules that have a scale of this kind, in the order of their names."""
    found = read_tensors(scheme / SINGLE)
    return sorted(name.removesuffix(f".{suffix}") for name in found if name.endswith(f".{suffix}"))


def one_of(scheme: Path, suffix: str = "weight_scale") -> str:
    """A module from the middle."""
    names = quantized(scheme, suffix)
    return names[len(names) // 2]


def dropped_group(scheme: Path) -> list[str]:
    """The modules of the first recipe that the scheme drops."""
    with document(coverage_path(scheme)) as manifest:
        recipe = manifest["dropped_layers"][0].removesuffix(".quant_recipe")
    recipe = recipe.replace("language_model.", "model.").replace("model.model.", "model.")
    parent, _, leaf = recipe.rpartition(".")
    weights = [n.removesuffix(".weight") for n in read_tensors(scheme / SINGLE)]
    if leaf == "experts":
        return [name for name in weights if name.startswith(f"{recipe}.")]
    return [f"{parent}.{member}" for member in GROUPS.get(leaf, (leaf,))]


def scale(module: str, suffix: str) -> list[Location]:
    return [Location(module=module, tensor=f"{module}.{suffix}", shard=SINGLE)]


def drop(suffix: str) -> Callable[[Mutant, Path], list[Location]]:
    def plant(mutant: Mutant, scheme: Path) -> list[Location]:
        module = one_of(scheme, suffix)
        with tensors(scheme) as found:
            del found[f"{module}.{suffix}"]
        return scale(module, suffix)

    return plant


def drop_all_smoothing(mutant: Mutant, scheme: Path) -> list[Location]:
    """The pre_quant_scale of every o_proj, so that no layer tells that it belongs there."""
    modules = [m for m in quantized(scheme, "pre_quant_scale") if m.endswith(".o_proj")]
    assert modules
    with tensors(scheme) as found:
        for module in modules:
            del found[f"{module}.pre_quant_scale"]
    return [place for module in modules for place in scale(module, "pre_quant_scale")]


def cut_scale(mutant: Mutant, scheme: Path) -> list[Location]:
    """A weight_scale with other sides than any format has."""
    module = one_of(scheme)
    with tensors(scheme) as found:
        name = f"{module}.weight_scale"
        found[name] = reshape(found[name], 7, 5)
    return scale(module, "weight_scale")


def retype_scale(mutant: Mutant, scheme: Path) -> list[Location]:
    module = one_of(scheme)
    with tensors(scheme) as found:
        name = f"{module}.weight_scale"
        half = b"\x00\x38" * math.prod(found[name].shape)
        found[name] = Spec("F16", found[name].shape, name, half)
    return scale(module, "weight_scale")


def spoil_scale(mutant: Mutant, scheme: Path) -> list[Location]:
    """The last number of a weight_scale is NaN: all bits but the sign set."""
    module = one_of(scheme)
    with tensors(scheme) as found:
        name = f"{module}.weight_scale"
        spec = found[name]
        nan = {"F32": b"\xff\xff\xff\x7f", "F8_E4M3": b"\x7f", "U8": b"\xff"}[spec.dtype]
        found[name] = replace(spec, raw=spec.data()[: -len(nan)] + nan)
    return scale(module, "weight_scale")


def dequantize(mutant: Mutant, scheme: Path) -> list[Location]:
    module = quantized(scheme)[0]
    graft(scheme, module, mutant.base)
    return weights_of(module)


def put_back(mutant: Mutant, scheme: Path) -> list[Location]:
    module = quantized(scheme)[0]
    with tensors(scheme) as found:
        found[f"{module}.weight"] = read_tensors(mutant.base / SINGLE)[f"{module}.weight"]
    return weights_of(module)


def quantize(mutant: Mutant, scheme: Path) -> list[Location]:
    modules = dropped_group(scheme)
    for module in modules:
        graft(scheme, module, mutant[100])
    return weights_of(*modules)


def leave_out(mutant: Mutant, scheme: Path) -> list[Location]:
    """A quantized module that both configs take for an unquantized one."""
    module = one_of(scheme)
    with quantization(scheme) as parts:
        listed = [part["quantized_layers"] for part in parts if "quantized_layers" in part]
        name = module if not listed or module in listed[0] else module.partition(".experts")[0]
        for layers in listed:
            layers.pop(name if name in layers else f"{name}.experts")
    if not listed:
        with excluded(scheme) as names:
            names.append(module)
        return weights_of(module)
    prefix = module if name == module else f"{name}.experts."
    return weights_of(*(each for each in quantized(scheme) if each.startswith(prefix)))


def take_in(mutant: Mutant, scheme: Path) -> list[Location]:
    """Unquantized modules that both configs take for quantized ones."""
    modules = dropped_group(scheme)
    with quantization(scheme) as parts:
        kept = dict.fromkeys(parts[0].get("exclude_modules", ()))
        mixed = "quantized_layers" in parts[0]
        for part in parts:
            if mixed:
                part["quantized_layers"].update({m: {"quant_algo": "FP8"} for m in modules})
    if not mixed:
        weights = read_tensors(scheme / SINGLE)
        plain = [n.removesuffix(".weight") for n, spec in weights.items()
                 if n.endswith(".weight") and spec.dtype == "BF16"]  # fmt: skip
        with excluded(scheme) as names:
            names[:] = [name for name in {*plain, *kept} if "*" not in name]
            names[:] = [name for name in names if name not in modules]
    return weights_of(*modules)


def resize_groups(mutant: Mutant, scheme: Path) -> list[Location]:
    """Both configs state groups of 64, wherever they state a size."""
    hit = set(quantized(scheme))
    with quantization(scheme) as parts:
        for part in parts:
            listed = part.get("quantized_layers", {})
            for layer in (part, *listed.values()):
                if "group_size" in layer:
                    layer["group_size"] = 64
            for group in part.get("config_groups", {}).values():
                for side in group.values():
                    if "group_size" in side:
                        side["group_size"] = 64
        if listed:
            sized = tuple(name for name, layer in listed.items() if "group_size" in layer)
            hit = {n for n in hit if any(f"{n}.".startswith(f"{name}.") for name in sized)}
    return weights_of(*hit)


def touch_head(mutant: Mutant, scheme: Path) -> list[Location]:
    """One bit of a weight that no format quantizes and no algorithm folds scales into."""
    with tensors(scheme) as found:
        found["lm_head.weight"] = flip(found["lm_head.weight"], element=77)
    return [Location(tensor="lm_head.weight", shard=SINGLE)]


def touch_norm(mutant: Mutant, scheme: Path) -> list[Location]:
    """One bit of the norm behind all layers, which AWQ folds nothing into."""
    name = "model.norm.weight"
    with tensors(scheme) as found:
        found[name] = flip(found[name], element=3)
    return [Location(tensor=name, shard=SINGLE)]


def keep_folded(mutant: Mutant, scheme: Path) -> list[Location]:
    """The norm of a whole export in front of a group that is not quantized: what a slicer gets
    that forgets about it."""
    norms = {"q_proj": "input_layernorm", "gate_proj": "post_attention_layernorm"}
    with document(coverage_path(scheme)) as manifest:
        recipes = [name.removesuffix(".quant_recipe") for name in manifest["dropped_layers"]]
    recipe = next(name for name in recipes if name.rpartition(".")[2] in norms)
    layer, _, leaf = recipe.partition("layers.")[2].partition(".")
    name = f"model.layers.{layer}.{norms[leaf.rpartition('.')[2]]}.weight"
    with tensors(scheme) as found:
        found[name] = read_tensors(mutant[100] / SINGLE)[name]
    return [Location(tensor=name, shard=SINGLE)]


def without_cache(mutant: Mutant, scheme: Path) -> list[Location]:
    """The configs know of no KV cache, the tensors have its scales."""
    with quantization(scheme) as (one, other):
        one["kv_cache_quant_algo"] = None
        del other["kv_cache_scheme"]
    return [
        place
        for suffix in ("k_scale", "v_scale")
        for module in quantized(scheme, suffix)
        for place in scale(module, suffix)
    ]


FAULTS = (
    Fault("CK201", 100, drop("weight_scale"), "weight_scale"),
    Fault("CK201", 100, drop("weight_scale_2"), "weight_scale_2", SECOND),
    Fault("CK201", 100, drop("input_scale"), "input_scale", INPUT),
    Fault("CK201", 100, drop("pre_quant_scale"), "pre_quant_scale", SMOOTHED),
    Fault("CK201", 50, drop_all_smoothing, "all-pre_quant_scales", FOLDED),
    Fault("CK201", 100, drop("k_scale"), "k_scale", ("fp8_kv",)),
    Fault("CK201", 50, drop("v_scale"), "v_scale", ("fp8_kv",)),
    Fault("CK203", 50, spoil_scale, "nan"),
    Fault("CK204", 50, cut_scale, "shape"),
    Fault("CK204", 50, retype_scale, "dtype"),
    Fault("CK301", 50, dequantize, "dequantized"),
    Fault("CK301", 50, put_back, "scales-left"),
    Fault("CK302", 50, quantize, "quantized"),
    Fault("CK401", 50, leave_out, "excluded"),
    Fault("CK401", 50, take_in, "not-excluded"),
    Fault("CK401", 50, resize_groups, "group-size", GROUPED),
    Fault("CK401", 50, without_cache, "kv-cache", ("fp8_kv",)),
    Fault("CK601", 50, touch_head, "lm_head"),
    Fault("CK601", 50, touch_norm, "norm"),
    Fault("CK601", 50, keep_folded, "folded", FOLDED),
)
CASES = [
    pytest.param(cell, fault, id=f"{cell.arch}-{cell.fmt}-{fault}")
    for cell in CELLS
    for fault in FAULTS
    if not fault.formats or cell.fmt in fault.formats
]


@pytest.mark.parametrize(("pristine", "fault"), CASES, indirect=["pristine"])
def test_one_fault_one_code(mutant: Mutant, fault: Fault) -> None:
    scheme = mutant[fault.percent]
    places = fault.plant(mutant, scheme)
    assert places
    mutant.expect(fault.code, scheme, places)


@pytest.mark.parametrize("pristine", CELLS, ids=lambda cell: cell.name, indirect=True)
def test_a_weight_in_another_shape(mutant: Mutant) -> None:
    """The base tells that the weight is wrong; without it, only that its scale does not fit,
    unless one scale fits all."""
    scheme = mutant[50]
    module = one_of(scheme)
    with tensors(scheme) as found:
        rows, columns = found[f"{module}.weight"].shape
        found[f"{module}.weight"] = reshape(found[f"{module}.weight"], rows // 4, columns * 4)
        scalar = found[f"{module}.weight_scale"].shape == ()
    (finding,) = mutant.new()
    assert (finding.code, finding.schemes) == ("CK604", (scheme.name,))
    assert [place.tensor for place in finding.locations] == [f"{module}.weight"]
    alone = ["CK204"]
    if scalar:  # it fits any weight, but in a format of blocks not one of several blocks
        alone = ["CK401"] if "fp8_pb_wo" in scheme.name else []
    assert [f.code for f in mutant.new(with_base=False)] == alone


@pytest.mark.parametrize(
    "pristine",
    [cell for cell in CELLS if cell.fmt != "mixed" and cell.arch != "qwen3_moe"],
    ids=lambda cell: cell.name,
    indirect=True,
)
def test_another_algorithm_in_both_configs(mutant: Mutant) -> None:
    """Every name but that of a format whose tensors look the same."""
    scheme = mutant[50]
    with document(scheme / CONFIGS[0]) as config:
        own = config["quantization"]["quant_algo"]
    wrong = ALGORITHMS.keys() - {own.upper()}
    for pair in ALIKE:
        if own.upper() in pair and not quantized(scheme, "pre_quant_scale"):
            wrong -= pair
    assert len(wrong) >= 12
    for name in sorted(wrong):
        with quantization(scheme) as parts:
            for part in parts:
                part["quant_algo"] = name
        assert [(name, f.code, f.schemes) for f in mutant.new()] == [
            (name, "CK401", (scheme.name,))
        ]


@pytest.mark.parametrize(
    "pristine",
    [cell for cell in CELLS if cell.fmt == "mixed"],
    ids=lambda cell: cell.name,
    indirect=True,
)
def test_another_algorithm_for_one_layer_of_a_mixture(mutant: Mutant) -> None:
    scheme = mutant[50]
    with quantization(scheme) as parts:
        for part in parts:
            layers = part["quantized_layers"]
            first = next(iter(layers))
            layers[first] = {"quant_algo": "MXFP8"}
    mutant.expect("CK401", scheme, weights_of(first))


@pytest.mark.parametrize(
    "pristine",
    [cell for cell in CELLS if cell.fmt == "nvfp4_awq"],
    ids=lambda cell: cell.name,
    indirect=True,
)
@pytest.mark.parametrize("leaf", ["o_proj", "v_proj"])
def test_a_scalar_where_awq_has_a_matrix(mutant: Mutant, leaf: str) -> None:
    with tensors(mutant[50]) as found:
        for name in [name for name in found if name.endswith(f".{leaf}.weight")]:
            found[name] = reshape(found[name])
    assert {finding.severity for finding in mutant.new()} >= {"error"}
