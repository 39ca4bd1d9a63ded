"""CK2, weights and scales of one scheme: one spoiled tensor of a real export, one code."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from build import Spec
from mutate import (
    Mutant,
    excluded,
    flip,
    graft,
    of_module,
    quantization,
    read_tensors,
    reshape,
    tensors,
    weights_of,
)

from ckptdiff.records.finding import Location

SHARD = "model.safetensors"
QUANTIZED = "model.layers.1.self_attn.o_proj"
UNQUANTIZED = "model.layers.5.mlp.down_proj"
GROUP = [f"model.layers.3.self_attn.{leaf}" for leaf in ("q_proj", "k_proj", "v_proj")]


def place(module: str, suffix: str) -> list[Location]:
    return [Location(module=module, tensor=f"{module}.{suffix}", shard=SHARD)]


def pack(found: dict[str, Spec], module: str, codes: np.ndarray, scale: np.float32) -> None:
    """Give a module these FP8 codes, which may be floats, and this scale."""
    raw = codes.astype(ml_dtypes.float8_e4m3fn).tobytes()
    found[f"{module}.weight"] = Spec("F8_E4M3", codes.shape, module, raw)
    found[f"{module}.weight_scale"] = Spec("F32", (), module, scale.tobytes())


def double(spec: Spec) -> Spec:
    """A float32 scale times two."""
    return replace(spec, raw=(2 * np.frombuffer(spec.data(), np.float32)).tobytes())


def smooth(mutant: Mutant) -> None:
    """SmoothQuant in place of FP8, with factors of 1/2 to 2 on the inputs: INT8 weights that do
    not follow from maxima of the base any more."""
    scheme = mutant[30]
    base = read_tensors(mutant.base / SHARD)
    with tensors(scheme) as found:
        for name in list(found):
            module = name.removesuffix(".weight_scale")
            if module != name:
                weight = bf16(base[f"{module}.weight"])
                factor = np.linspace(0.5, 2, weight.shape[1]).astype(ml_dtypes.bfloat16)
                found[f"{module}.pre_quant_scale"] = spec_of("BF16", factor)
                pack_int8(found, module, weight / factor.astype(np.float32))
    with quantization(scheme) as parts:
        for part in parts:
            part["quant_algo"] = "W8A8_SQ_PER_CHANNEL"
            part.pop("config_groups", None)
    mutant.settle()


def bf16(spec: Spec) -> np.ndarray:
    values = np.frombuffer(spec.data(), ml_dtypes.bfloat16).reshape(spec.shape)
    return values.astype(np.float32)


def spec_of(dtype: str, array: np.ndarray) -> Spec:
    return Spec(dtype, array.shape, "", array.tobytes())


def pack_int8(found: dict[str, Spec], module: str, weight: np.ndarray, share: float = 1) -> None:
    """Give a module INT8 codes with scales for a share of each row's maximum."""
    scale = np.abs(weight).max(axis=1) * np.float32(share) / np.float32(127)
    codes = np.clip(np.rint(weight / scale[:, None]), -128, 127).astype(np.int8)
    found[f"{module}.weight"] = spec_of("I8", codes)
    found[f"{module}.weight_scale"] = spec_of("F32", scale.astype(np.float32))


def drop_manifests(mutant: Mutant) -> None:
    """Then nothing says what top30 selects, and that is all that is new."""
    shutil.rmtree(mutant[30] / "layer-sensitivity")
    assert [(f.code, f.schemes) for f in mutant.new()] == [("CK307", (mutant[30].name,))]
    mutant.settle()


def test_all_ck2_clean(mutant: Mutant) -> None:
    assert mutant.new() == []
    assert mutant.new(deep=True) == []


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


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("module", [QUANTIZED, GROUP[1], "visual.merger.mlp.0"])
def test_ck207_fires(mutant: Mutant, module: str, bit: int) -> None:
    """One bit of one code, which is told by row and column and by byte."""
    with tensors(mutant[30]) as found:
        rows, columns = found[f"{module}.weight"].shape
        row, column = rows // 2, columns - 3
        healthy = found[f"{module}.weight"].data()[row * columns + column]
        found[f"{module}.weight"] = flip(
            found[f"{module}.weight"], bit, element=row * columns + column
        )
    finding = mutant.expect("CK207", mutant[30], weights_of(module))
    (place,) = finding.locations
    assert f"1 of {rows * columns:,} codes" in finding.message
    assert place.expected == f"0x{healthy:02x} at [{row}, {column}]"
    assert (place.actual or "").startswith(f"0x{healthy ^ 1 << bit:02x}, one of 1 wrong codes")
    assert place.offset is not None
    assert (mutant[30] / SHARD).read_bytes()[place.offset] == healthy ^ 1 << bit


def test_ck207_fires_for_another_layer(mutant: Mutant) -> None:
    """Codes and scales that go together, and belong elsewhere: one fault, not two."""
    with tensors(mutant[100]) as found:
        for name, spec in of_module(found, QUANTIZED).items():
            found[name.replace(".1.", ".4.")] = spec
    stale = QUANTIZED.replace(".1.", ".4.")
    finding = mutant.expect("CK207", mutant[100], weights_of(stale))
    assert finding.message.endswith("nor are the scales of 1 of them")


def test_ck207_fires_for_a_base_that_was_trained_further(mutant: Mutant) -> None:
    """One step of the base: a weight that a scheme quantizes is stale, one that it does not is
    CK601's, and everything is told once."""
    with tensors(mutant.base) as found:
        found[f"{QUANTIZED}.weight"] = flip(found[f"{QUANTIZED}.weight"], bit=6, element=5)
    quantized = {path.name for path in mutant.root.iterdir() if QUANTIZED in quantized_in(path)}
    findings = mutant.new(deep=True)
    assert {f.schemes[0] for f in findings if f.code == "CK207"} == quantized
    assert {f.schemes[0] for f in findings if f.code == "CK601"} == {
        path.name for path in mutant.root.iterdir()
    } - quantized
    assert {f.code for f in findings} == {"CK207", "CK601"}


def quantized_in(scheme: Path) -> set[str]:
    names = read_tensors(scheme / SHARD)
    return {name.removesuffix(".weight_scale") for name in names if name.endswith("weight_scale")}


@pytest.mark.parametrize("module", [QUANTIZED, GROUP[1], "visual.merger.mlp.0"])
def test_ck208_fires(mutant: Mutant, module: str) -> None:
    with tensors(mutant[30]) as found:
        before = np.frombuffer(found[f"{module}.weight_scale"].data(), np.float32)[0]
        found[f"{module}.weight_scale"] = double(found[f"{module}.weight_scale"])
    finding = mutant.expect("CK208", mutant[30], place(module, "weight_scale"))
    assert (finding.expected, finding.actual) == (f"{before:.9g}", f"{2 * before:.9g}")


def test_ck208_fires_for_another_layer(mutant: Mutant) -> None:
    with tensors(mutant[100]) as found:
        other = QUANTIZED.replace(".1.", ".4.")
        found[f"{QUANTIZED}.weight_scale"] = found[f"{other}.weight_scale"]
    mutant.expect("CK208", mutant[100], place(QUANTIZED, "weight_scale"))


def test_ck208_fires_on_a_scale_that_its_codes_follow(mutant: Mutant) -> None:
    """Quantized by another maximum than the base's, where all others are by their own."""
    weight = bf16(read_tensors(mutant.base / SHARD)[f"{QUANTIZED}.weight"])
    with tensors(mutant[30]) as found:
        scale = np.frombuffer(found[f"{QUANTIZED}.weight_scale"].data(), np.float32)[0]
        scale = np.float32(scale * 1.3)
        quotient = (weight / scale).astype(ml_dtypes.bfloat16)
        pack(found, QUANTIZED, quotient, scale)
    mutant.expect("CK208", mutant[30], place(QUANTIZED, "weight_scale"))


def test_ck209_fires(mutant: Mutant) -> None:
    smooth(mutant)
    with tensors(mutant[30]) as found:
        found[f"{QUANTIZED}.weight_scale"] = double(found[f"{QUANTIZED}.weight_scale"])
    finding = mutant.expect("CK209", mutant[30], weights_of(QUANTIZED))
    assert finding.expected == "at least 14 dB against base"
    # The error is the weight itself, apart from the noise of quantization.
    assert finding.actual in ("0.0 dB", "-0.0 dB")


def test_ck209_fires_for_another_layer(mutant: Mutant) -> None:
    smooth(mutant)
    with tensors(mutant[30]) as found:
        other = read_tensors(mutant.base / SHARD)[f"{QUANTIZED.replace('.1.', '.4.')}.weight"]
        pack_int8(found, QUANTIZED, bf16(other))
    mutant.expect("CK209", mutant[30], weights_of(QUANTIZED))


@pytest.mark.parametrize("factor", [0.5, 2])
def test_ck209_fires_for_a_factor(mutant: Mutant, factor: float) -> None:
    """The factors of the inputs belong to the weight."""
    smooth(mutant)
    with tensors(mutant[30]) as found:
        name = f"{QUANTIZED}.pre_quant_scale"
        given = np.frombuffer(found[name].data(), ml_dtypes.bfloat16).astype(np.float32)
        found[name] = spec_of("BF16", (factor * given).astype(ml_dtypes.bfloat16))
    mutant.expect("CK209", mutant[30], weights_of(QUANTIZED))


@pytest.mark.parametrize("smoothed", [False, True])
def test_ck210_fires(mutant: Mutant, smoothed: bool) -> None:
    if smoothed:
        smooth(mutant)
    with tensors(mutant[30]) as found:
        spec = found[f"{QUANTIZED}.weight"]
        found[f"{QUANTIZED}.weight"] = replace(spec, raw=bytes(spec.nbytes))
    mutant.expect("CK210", mutant[30], weights_of(QUANTIZED))


def test_ck211_fires(mutant: Mutant) -> None:
    """Scales for four tenths of the maxima: everything beyond is cut off."""
    smooth(mutant)
    with tensors(mutant[30]) as found:
        factor = np.frombuffer(found[f"{QUANTIZED}.pre_quant_scale"].data(), ml_dtypes.bfloat16)
        base = bf16(read_tensors(mutant.base / SHARD)[f"{QUANTIZED}.weight"])
        pack_int8(found, QUANTIZED, base / factor.astype(np.float32), share=0.6)
        codes = np.frombuffer(found[f"{QUANTIZED}.weight"].data(), np.int8)
    finding = mutant.expect("CK211", mutant[30], weights_of(QUANTIZED))
    assert finding.actual == f"{(np.abs(codes.astype(int)) >= 127).mean():.1%}"


def test_ck212_fires(mutant: Mutant) -> None:
    """An export by a GPU: codes by the scale in BF16, which is stored in float32."""
    module = "visual.merger.mlp.0"
    weight = bf16(read_tensors(mutant.base / SHARD)[f"{module}.weight"])
    scale = np.abs(weight).max() * (np.float32(1) / np.float32(448))
    coarse = scale.astype(ml_dtypes.bfloat16).astype(np.float32)
    with tensors(mutant[30]) as found:
        quotient = (weight / coarse).astype(ml_dtypes.bfloat16)
        pack(found, module, quotient, scale)
    finding = mutant.expect("CK212", mutant[30], weights_of(module))
    assert finding.actual == f"{float(scale) / float(coarse) - 1:+.3%}"
    (row,) = (row for row in mutant.check(deep=True).schemes if row.id == mutant[30].name)
    assert row.proof is not None and row.proof.dialects == ("BF16 cpu", "BF16 cuda")


def test_a_code_or_a_finite_scale_that_changed_is_not_for_these_rules(mutant: Mutant) -> None:
    """What only a comparison of values with the base can tell is silent here."""
    with tensors(mutant[30]) as found:
        for name in of_module(found, QUANTIZED):
            found[name] = flip(found[name])
    assert mutant.new() == []
