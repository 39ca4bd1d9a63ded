"""CK2, weights and scales of one scheme: one spoiled tensor of a real export, one code."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace

import pytest
from build import Spec
from mutate import Mutant, excluded, flip, graft, of_module, reshape, tensors, weights_of

from ckptdiff.records.finding import Location

SHARD = "model.safetensors"
QUANTIZED = "model.layers.1.self_attn.o_proj"
UNQUANTIZED = "model.layers.5.mlp.down_proj"
GROUP = [f"model.layers.3.self_attn.{leaf}" for leaf in ("q_proj", "k_proj", "v_proj")]


def place(module: str, suffix: str) -> list[Location]:
    return [Location(module=module, tensor=f"{module}.{suffix}", shard=SHARD)]


def drop_manifests(mutant: Mutant) -> None:
    """Then nothing says what top30 selects, and that is all that is new."""
    shutil.rmtree(mutant[30] / "layer-sensitivity")
    assert [(f.code, f.schemes) for f in mutant.new()] == [("CK307", (mutant[30].name,))]
    mutant.settle()


def test_all_ck2_clean(mutant: Mutant) -> None:
    assert mutant.new() == []


@pytest.mark.parametrize("suffix", ["weight_scale", "input_scale"])
@pytest.mark.parametrize("module", [QUANTIZED, GROUP[1], "visual.merger.mlp.0"])
def test_ck201_fires(mutant: Mutant, module: str, suffix: str) -> None:
    with tensors(mutant[30]) as found:
        del found[f"{module}.{suffix}"]
    mutant.expect("CK201", mutant[30], place(module, suffix))


def test_ck201_fires_without_manifests(mutant: Mutant) -> None:
    drop_manifests(mutant)
    with tensors(mutant[30]) as found:
        del found[f"{QUANTIZED}.weight_scale"]
    mutant.expect("CK201", mutant[30], place(QUANTIZED, "weight_scale"))


@pytest.mark.parametrize("suffix", ["weight_scale", "input_scale", "pre_quant_scale"])
def test_ck202_fires(mutant: Mutant, suffix: str) -> None:
    with tensors(mutant[30]) as found:
        found[f"{UNQUANTIZED}.{suffix}"] = found[f"{QUANTIZED}.input_scale"]
    mutant.expect("CK202", mutant[30], place(UNQUANTIZED, suffix))


@pytest.mark.parametrize("module", [QUANTIZED, GROUP[0]])
def test_ck202_fires_for_a_weight_put_back(mutant: Mutant, module: str) -> None:
    """No manifest selects it, so its scales are all that tell."""
    drop_manifests(mutant)
    with tensors(mutant.base) as base, tensors(mutant[30]) as found:
        found[f"{module}.weight"] = base[f"{module}.weight"]
    mutant.expect("CK202", mutant[30], place(module, "weight_scale") + place(module, "input_scale"))


@pytest.mark.parametrize("value", [0.0, -0.0, -0.001, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", ["weight_scale", "input_scale"])
def test_ck203_fires(mutant: Mutant, suffix: str, value: float) -> None:
    with tensors(mutant[30]) as found:
        found[f"{QUANTIZED}.{suffix}"] = Spec("F32", (), "", struct.pack("<f", value))
    mutant.expect("CK203", mutant[30], place(QUANTIZED, suffix))


@pytest.mark.parametrize("suffix", ["weight_scale", "input_scale"])
@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_ck204_fires(mutant: Mutant, suffix: str, change: str) -> None:
    name = f"{QUANTIZED}.{suffix}"
    with tensors(mutant[30]) as found:
        half = Spec("F16", (), "", struct.pack("<e", 0.5))
        found[name] = reshape(found[name], 2) if change == "shape" else half
    mutant.expect("CK204", mutant[30], place(QUANTIZED, suffix))


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_ck205_fires_on_a_code(mutant: Mutant, code: int) -> None:
    with tensors(mutant[30]) as found:
        spec = found[f"{QUANTIZED}.weight"]
        data = spec.data()
        found[f"{QUANTIZED}.weight"] = replace(spec, raw=data[:1000] + bytes([code]) + data[1001:])
    finding = mutant.expect(
        "CK205", mutant[30], [Location(tensor=f"{QUANTIZED}.weight", shard=SHARD)]
    )
    assert "first at 1000" in (finding.actual or "")


@pytest.mark.parametrize("value", [b"\xc0\x7f", b"\x80\x7f", b"\x80\xff"])
@pytest.mark.parametrize("name", [f"{UNQUANTIZED}.weight", "model.norm.weight", f"{GROUP[0]}.bias"])
def test_ck205_fires(mutant: Mutant, name: str, value: bytes) -> None:
    """A BF16 NaN or infinity where base has a number: no CK601 beside it."""
    with tensors(mutant[30]) as found:
        data = found[name].data()
        found[name] = replace(found[name], raw=data[:20] + value + data[22:])
    mutant.expect("CK205", mutant[30], [Location(tensor=name, shard=SHARD)])


def test_ck206_fires(mutant: Mutant) -> None:
    """k_proj alone is unquantized, the config agrees, and no manifest says why."""
    drop_manifests(mutant)
    graft(mutant[30], GROUP[1], mutant.base)
    with excluded(mutant[30]) as modules:
        modules.append(GROUP[1])
    mutant.expect("CK206", mutant[30], weights_of(*GROUP))


def test_a_code_or_a_finite_scale_that_changed_is_not_for_these_rules(mutant: Mutant) -> None:
    """What only a comparison of values with the base can tell is silent here."""
    with tensors(mutant[30]) as found:
        for name in of_module(found, QUANTIZED):
            found[name] = flip(found[name])
    assert mutant.new() == []
