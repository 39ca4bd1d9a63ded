"""CK4, configs: one wrong line in a real export's configs, or beside them, one code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from build import Spec, SweepSpec, recipes, write_sweep
from mutate import (
    WAYS,
    Mutant,
    baseline_path,
    coverage,
    document,
    excluded,
    graft,
    of_module,
    quantization,
    read_tensors,
    tensors,
    weights_of,
)

from ckptdiff.records.finding import Location

HF, CONFIG = "hf_quant_config.json", "config.json"
KV_SCHEME = {"dynamic": False, "num_bits": 8, "type": "float"}
QUANTIZED = "model.layers.1.self_attn.o_proj"
GROUP = [f"model.layers.3.self_attn.{leaf}" for leaf in ("q_proj", "k_proj", "v_proj")]


def modules(scheme: Path, dtype: str = "F8_E4M3") -> list[str]:
    found = read_tensors(scheme / "model.safetensors").items()
    return [name.removesuffix(".weight") for name, spec in found if spec.dtype == dtype]


def test_all_ck4_clean(mutant: Mutant) -> None:
    """Every ModelOpt export is CK406, an info about who may load it."""
    assert {f.code for f in mutant.healthy[True, False]} == {"CK406"}
    assert mutant.new() == []


@pytest.mark.parametrize("algorithm", ["NVFP4", "W8A16", "MXFP8", "FP8_PER_CHANNEL_PER_TOKEN"])
def test_ck401_fires_on_another_algorithm(mutant: Mutant, algorithm: str) -> None:
    with quantization(mutant[30]) as parts:
        for part in parts:
            part["quant_algo"] = algorithm
    mutant.expect("CK401", mutant[30], weights_of(*modules(mutant[30])))


def test_ck401_fires_on_an_algorithm_that_fits_some_weights(mutant: Mutant) -> None:
    """One scale goes with a weight of a single block, but static activations do not."""
    with quantization(mutant[30]) as parts:
        for part in parts:
            part["quant_algo"] = "fp8_pb_wo"
    mutant.expect("CK401", mutant[30], weights_of(*modules(mutant[30])))


@pytest.mark.parametrize("module", [QUANTIZED, GROUP[0]])
def test_ck401_fires_on_a_quantized_module_that_is_excluded(mutant: Mutant, module: str) -> None:
    with excluded(mutant[30]) as names:
        names.append(module)
    mutant.expect("CK401", mutant[30], weights_of(module))


def test_ck401_fires_on_a_bare_name_above_quantized_modules(mutant: Mutant) -> None:
    """It excludes them for every loader, so nothing is ambiguous: no CK403."""
    with excluded(mutant[30]) as names:
        names.append("visual.merger")
    mutant.expect("CK401", mutant[30], weights_of("visual.merger.mlp.0", "visual.merger.mlp.2"))


def test_ck401_fires(mutant: Mutant) -> None:
    """An unquantized module is no longer excluded."""
    with excluded(mutant[30]) as names:
        names.remove("model.layers.2.mlp.down_proj")
    mutant.expect("CK401", mutant[30], weights_of("model.layers.2.mlp.down_proj"))


def test_ck401_fires_on_a_pattern_that_is_gone(mutant: Mutant) -> None:
    with excluded(mutant[30]) as names:
        names.remove("visual.blocks.0.attn*")
    mutant.expect(
        "CK401", mutant[30], weights_of("visual.blocks.0.attn.proj", "visual.blocks.0.attn.qkv")
    )


def test_ck401_fires_without_manifests_on_part_of_a_group(mutant: Mutant) -> None:
    """The config says that q is quantized, so the group is not partial: no CK206."""
    shutil.rmtree(mutant[30] / "layer-sensitivity")
    mutant.settle()
    graft(mutant[30], GROUP[0], mutant.base)
    mutant.expect("CK401", mutant[30], weights_of(GROUP[0]))


def test_ck401_fires_on_a_kv_cache_without_scales(mutant: Mutant) -> None:
    with quantization(mutant[30]) as (one, other):
        one["kv_cache_quant_algo"] = "FP8"
        other["kv_cache_scheme"] = KV_SCHEME
    mutant.expect("CK401", mutant[30], [Location(shard=HF)])


def test_ck401_fires_on_a_scale_of_no_kv_cache(mutant: Mutant) -> None:
    module = "model.layers.3.self_attn.k_proj"
    with tensors(mutant[30]) as found:
        found[f"{module}.k_scale"] = found[f"{module}.input_scale"]
    place = Location(module=module, tensor=f"{module}.k_scale", shard="model.safetensors")
    mutant.expect("CK401", mutant[30], [place])


@pytest.mark.parametrize("file", [CONFIG, HF])
@pytest.mark.parametrize(
    ("change", "module"),
    [
        ("algorithm", None),
        ("kv", None),
        ("add", QUANTIZED),
        ("add", "visual"),
        ("add", "model.layers.1.mlp.gate"),
        ("remove", "model.layers.4*"),
    ],
)
def test_ck402_fires(mutant: Mutant, file: str, change: str, module: str | None) -> None:
    """Whichever of the two is wrong: that they differ is said once, and by no other rule."""
    with quantization(mutant[30], [file]) as (part,):
        names = part["exclude_modules" if file == HF else "ignore"]
        if change == "algorithm":
            part["quant_algo"] = "NVFP4"
        elif change == "kv":
            key = "kv_cache_quant_algo" if file == HF else "kv_cache_scheme"
            part[key] = "FP8" if file == HF else KV_SCHEME
        elif change == "add":
            names.append(module)
        else:
            names.remove(module)
    mutant.expect("CK402", mutant[30], [Location(module=module, shard=CONFIG)])


@pytest.mark.parametrize("entry", ["model.layers.1.mlp.gate", "model.layers.1.self_attn.o", "vis"])
def test_ck403_fires(mutant: Mutant, entry: str) -> None:
    with excluded(mutant[30]) as names:
        names.append(entry)
    mutant.expect("CK403", mutant[30], [Location(module=entry, shard=HF)])


def test_ck403_fires_on_layer_1_for_layer_10(tmp_path: Path) -> None:
    spec = SweepSpec(layers=12, ranking=tuple(recipes(12)))
    root = write_sweep(tmp_path / "made", spec)
    # Its codes are random, and none that the base gives.
    mutant = Mutant.of(root, tmp_path / "made" / "base", tmp_path / "copied", WAYS[:2])
    assert "model.layers.10.self_attn.o_proj" in spec.selected(10)
    assert not any(name.startswith("model.layers.1.") for name in spec.selected(10))
    with excluded(mutant[10]) as names:
        names.append("model.layers.1")
    finding = mutant.expect("CK403", mutant[10], [Location(module="model.layers.1", shard=HF)])
    assert "model.layers.10.self_attn.o_proj and 1 more" in (finding.locations[0].actual or "")


@pytest.mark.parametrize("selected", [False, True])
def test_ck404_fires(mutant: Mutant, selected: bool) -> None:
    """A quantized lm_head beside tied embeddings, whether the ranking lists it or not."""
    if selected:
        for path in mutant.root.glob("*/layer-sensitivity/*quant_manifest.json"):
            with document(path) as search:
                search["layer_sensitivity"]["lm_head.quant_recipe"] = {"formats": []}
        for percent in (10, 30, 50, 100):
            with coverage(mutant[percent]) as manifest:
                manifest["selected_layers"].append("lm_head.quant_recipe")
        mutant.settle()
    with tensors(mutant[30]) as found:
        for name, spec in of_module(found, QUANTIZED).items():
            found[name.replace(QUANTIZED, "lm_head")] = spec
        found["lm_head.weight"] = Spec("F8_E4M3", (512, 96), "head")
    mutant.expect("CK404", mutant[30], weights_of("lm_head"))


def test_ck405_fires(mutant: Mutant) -> None:
    """top30 drops k alone: its manifest, its tensors and both configs say so."""
    baseline_path(mutant[30]).unlink()
    mutant.settle()
    module = GROUP[1]
    with coverage(mutant[30]) as manifest:
        name = f"{module.replace('model.', 'language_model.', 1)}.quant_recipe"
        manifest["dropped_layers"].append(name)
    graft(mutant[30], module, mutant.base)
    with excluded(mutant[30]) as names:
        names.append(module)
    mutant.expect("CK405", mutant[30], [Location(module=name) for name in GROUP])


def test_ck406_fires(mutant: Mutant) -> None:
    """For every scheme, until nothing in it is quantized."""
    ids = {path.name for path in mutant.root.iterdir()}
    assert {f.schemes for f in mutant.healthy[True, False]} == {(id,) for id in ids}
    for module in modules(mutant[10]):
        graft(mutant[10], module, mutant.base)
    left = [f for f in mutant.check(with_base=True).findings if f.code == "CK406"]
    assert {f.schemes for f in left} == {(id,) for id in ids - {mutant[10].name}}


def change_vocabulary(path: Path) -> None:
    with document(path) as tokenizer:
        vocabulary: dict[str, Any] = tokenizer["model"]["vocab"]
        first, second = list(vocabulary)[:2]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
             "preprocessor_config.json"]
)  # fmt: skip
def test_ck407_fires_when_missing(mutant: Mutant, name: str) -> None:
    (mutant[30] / name).unlink()
    finding = mutant.expect("CK407", mutant[30], [Location(shard=name)])
    assert finding.locations[0].actual == "missing"


def test_ck407_fires(mutant: Mutant) -> None:
    before = json.loads((mutant[30] / "tokenizer.json").read_text())
    change_vocabulary(mutant[30] / "tokenizer.json")
    assert json.loads((mutant[30] / "tokenizer.json").read_text()) != before
    finding = mutant.expect("CK407", mutant[30], [Location(shard="tokenizer.json")])
    assert finding.locations[0].actual == "different"
