"""`check --deep` on real AWQ exports: faults of one scale tensor or one bit, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from build import Spec
from mutate import SINGLE, Mutant, flip, of_module, read_tensors, tensors

from ckptdiff.quant.arrays import as_array
from ckptdiff.records.finding import Location
from tests.exports import Cell

ARCHS = ("llama", "qwen2_5_vl")
# What shares the norm in front with others, and what has a factor of its own or none.
LEAVES = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "o_proj", "down_proj")

pytestmark = pytest.mark.timeout(600)


def cells_of(*formats: str) -> list[object]:
    cells = [Cell(arch, False, "bf16", fmt) for arch in ARCHS for fmt in formats]
    return [pytest.param(cell, id=f"{cell.arch}-{cell.fmt}") for cell in cells]


def modules_of(found: Mapping[str, Spec], leaf: str) -> list[str]:
    """The quantized modules of all layers with this name."""
    suffix = f".{leaf}.weight_scale"
    return sorted(n.removesuffix(".weight_scale") for n in found if n.endswith(suffix))


def another(found: Mapping[str, Spec], module: str) -> Spec:
    """The scale of this module in another layer; where none is quantized there, its own, each
    row's in the next row."""
    mine = found[f"{module}.weight_scale"]
    others = [m for m in modules_of(found, module.rpartition(".")[2]) if m != module]
    if others:
        return found[f"{others[0]}.weight_scale"]
    array = as_array(mine.data(), mine.dtype, mine.shape)
    return replace(mine, raw=np.roll(array, 1, axis=0).tobytes())


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("pristine", cells_of("int4_awq", "w4a8_awq"), indirect=True)
def test_a_scale_of_another_layer(mutant: Mutant, leaf: str) -> None:
    """In one module after the other: it is the scale, of that module alone."""
    scheme, healthy = mutant[100], dict[str, Spec]()
    with tensors(scheme) as found:
        healthy |= found
    modules = modules_of(healthy, leaf)
    for module in modules:
        name = f"{module}.weight_scale"
        with tensors(scheme) as found:
            found[name] = another(healthy, module)
        place = Location(module=module, tensor=name, shard=SINGLE)
        if module == modules[0]:
            mutant.expect("CK208", scheme, [place])
        else:
            _assert_only(mutant, "CK208", module, name)
        with tensors(scheme) as found:
            found[name] = healthy[name]


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("bit", range(4))
@pytest.mark.parametrize("pristine", cells_of("nvfp4_awq"), indirect=True)
def test_a_bit_of_a_block_s_largest(mutant: Mutant, leaf: str, bit: int) -> None:
    """Which lies far from any border: its block's scale was made of it."""
    scheme = mutant[100]
    with tensors(scheme) as found:
        for module in modules_of(found, leaf):
            row, column = _largest(found[f"{module}.weight"])
            weight = found[f"{module}.weight"]
            element, upper = row * weight.shape[1] + column // 2, column % 2
            found[f"{module}.weight"] = flip(weight, bit=bit + 4 * upper, element=element)
            break
        else:
            pytest.fail(f"no {leaf} is quantized")
    finding = _assert_only(mutant, "CK207", module, f"{module}.weight")
    assert finding.expected is not None and finding.expected.endswith(f"at [{row}, {column}]")


# Second scales: of the whole NVFP4 weight, and in W4A8 of what a kernel makes of it


# What is not seen of a scale that no other has to be equal to.
UNSEEN = 0.009
ALONE = ("o_proj", "down_proj")


def times(spec: Spec, factor: float) -> Spec:
    value = np.frombuffer(spec.data(), np.float32) * np.float32(factor)
    return replace(spec, raw=value.tobytes())


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("pristine", cells_of("nvfp4_awq", "w4a8_awq"), indirect=True)
def test_a_second_scale_of_another_layer(mutant: Mutant, leaf: str) -> None:
    """In one module after the other, and one that is off by 1 %: it is that module's alone. One
    that is so far off that the weight is none of base's any more is the weight's fault."""
    scheme, healthy = mutant[100], dict[str, Spec]()
    with tensors(scheme) as found:
        healthy |= found
    modules = modules_of(healthy, leaf)
    for number, module in enumerate(modules):
        name = f"{module}.weight_scale_2"
        other = healthy[f"{modules[number - 1]}.weight_scale_2"]
        swapped = value_of(other) / value_of(healthy[name])
        for factor in (swapped,) if number else (swapped, 1.01, 1 / 1.01):
            if abs(factor - 1) < UNSEEN and leaf in ALONE:
                continue
            with tensors(scheme) as found:
                found[name] = times(healthy[name], factor)
            (finding,) = mutant.new(deep=True)
            (place,) = finding.locations
            assert place.module == module
            if not (finding.code == "CK209" and abs(factor - 1) > 0.25):
                assert (finding.code, place.tensor) == ("CK208", name)
        with tensors(scheme) as found:
            found[name] = healthy[name]


def value_of(spec: Spec) -> float:
    return float(np.frombuffer(spec.data(), np.float32)[0])


@pytest.mark.parametrize("percent", [50, 100])
@pytest.mark.parametrize("pristine", cells_of("nvfp4_awq", "w4a8_awq"), indirect=True)
def test_second_scales_of_a_whole_group(mutant: Mutant, percent: int) -> None:
    """All are equal, and all are wrong: in v_proj and up_proj it shows where no factors were
    moved to their rows."""
    scheme = mutant[percent]
    with tensors(scheme) as found:
        module = modules_of(found, "q_proj")[0].rpartition(".")[0]
        names = [f"{module}.{leaf}.weight_scale_2" for leaf in LEAVES[:3]]
        for name in names:
            found[name] = times(found[name], 1.02)
    (finding,) = mutant.new(deep=True)
    assert finding.code == "CK208"
    assert sorted(place.tensor or "" for place in finding.locations) == sorted(names)


@pytest.mark.parametrize("pristine", cells_of("w4a8_awq"), indirect=True)
def test_a_part_of_a_group_keeps_the_scale_of_the_whole(mutant: Mutant) -> None:
    """Though the one is gone whose largest value it was made of, it is not stale."""
    scheme, original = mutant[100], read_tensors(mutant.base / SINGLE)
    with tensors(scheme) as found:
        largest = {
            module: np.frombuffer(found[f"{module}.weight_scale"].data(), np.float32).max()
            for leaf in LEAVES[:3]
            for module in modules_of(found, leaf)
        }
        parent = next(iter(largest)).rpartition(".")[0]
        gone = max((m for m in largest if m.startswith(parent)), key=largest.__getitem__)
        for name in of_module(found, gone):
            del found[name]
        found[f"{gone}.weight"] = original[f"{gone}.weight"]
    report = mutant.check(deep=True)
    assert "CK208" not in {finding.code for finding in report.findings}
    (row,) = (row for row in report.schemes if row.id == scheme.name)
    assert row.proof is not None and (row.proof.wrong, row.proof.unknown) == (0, 0)


@pytest.mark.parametrize("pristine", cells_of("nvfp4_awq"), indirect=True)
def test_the_sign_of_a_zero_is_worth_nothing(mutant: Mutant) -> None:
    scheme = mutant[100]
    with tensors(scheme) as found:
        name = f"{modules_of(found, 'q_proj')[0]}.weight"
        array = as_array(found[name].data(), "U8", found[name].shape)
        at = int((array.reshape(-1) & 7 == 0).argmax())
        found[name] = flip(found[name], bit=3, element=at)
    assert mutant.new(deep=True) == []


def _largest(weight: Spec) -> tuple[int, int]:
    """[row, column] of a code of 6 that no other in its block of 16 shares."""
    array = as_array(weight.data(), "U8", weight.shape)
    codes = np.stack([array & 7, array >> 4 & 7], axis=2).reshape(len(array), -1, 16)
    row, block = np.argwhere((codes == 7).sum(axis=2) == 1)[5]
    return int(row), int(block * 16 + codes[row, block].argmax())


def _assert_only(mutant: Mutant, code: str, module: str, tensor: str) -> Location:
    (finding,) = mutant.new(deep=True)
    (place,) = finding.locations
    assert (finding.code, place.module, place.tensor) == (code, module, tensor)
    return place


@pytest.mark.parametrize("pristine", cells_of("int4_awq", "nvfp4_awq"), indirect=True)
def test_behind_a_norm_that_is_zero_a_column_may_be_anything(mutant: Mutant) -> None:
    """Nobody can read off what it was smoothed by."""
    for folder in (mutant.base, *mutant.root.iterdir()):
        with tensors(folder) as found:
            for name in [name for name in found if name.endswith("layernorm.weight")]:
                raw = found[name].data()
                found[name] = replace(found[name], raw=raw[:6] + bytes(2) + raw[8:])
    assert mutant.new(deep=True) == []


# Norms, which hold what the weights behind them were smoothed by


def norm_before(module: str) -> str:
    layer, _, leaf = module.rpartition(".")
    attention = leaf in ("q_proj", "k_proj", "v_proj")
    norm = "input_layernorm" if attention else "post_attention_layernorm"
    return f"{layer.rpartition('.')[0]}.{norm}.weight"


def spoiled(how: str, mine: Spec, base: Spec, other: Spec) -> Spec:
    match how:
        case "zero":
            return replace(mine, raw=bytes(len(mine.data())))
        case "another layer's":
            return replace(mine, raw=other.data())
    return replace(mine, raw=base.data())


@pytest.mark.parametrize("how", ["zero", "another layer's", "the base's"])
@pytest.mark.parametrize("pristine", cells_of("int4_awq", "w4a8_awq", "nvfp4_awq"), indirect=True)
def test_a_norm_that_is_not_the_one_of_the_weights_behind_it(mutant: Mutant, how: str) -> None:
    """It is told of every weight behind it, and of no other. A script that takes all that is not
    quantized from the base does this."""
    scheme, healthy = mutant[100], dict[str, Spec]()
    with tensors(scheme) as found:
        healthy |= found
    with tensors(mutant.base) as found:
        originals = dict(found)
    for leaf in ("q_proj", "gate_proj"):
        modules = modules_of(healthy, leaf)
        norms = [norm_before(module) for module in modules]
        with tensors(scheme) as found:
            found[norms[0]] = spoiled(
                how, healthy[norms[0]], originals[norms[0]], healthy[norms[1]]
            )
        new = mutant.new(deep=True)
        assert {f.code for f in new} <= {"CK207", "CK208", "CK209"}
        behind = {
            m
            for each in LEAVES[:5]
            for m in modules_of(healthy, each)
            if norm_before(m) == norms[0]
        }
        assert {place.module for f in new for place in f.locations} == behind
        assert all(f.severity == "error" or f.code == "CK209" for f in new)
        with tensors(scheme) as found:
            found[norms[0]] = healthy[norms[0]]


@pytest.mark.parametrize("pristine", cells_of("nvfp4_awq"), indirect=True)
def test_a_linear_that_nothing_was_moved_to_is_held_against_base(mutant: Mutant) -> None:
    """What is behind it is not quantized, so that it is base's like all that is not."""
    scheme = mutant[50]
    with tensors(scheme) as found:
        name = next(
            name
            for name in found
            if name.endswith(".up_proj.weight")
            and f"{name}_scale" not in found
            and f"{name.replace('up_proj', 'down_proj')}_scale" not in found
        )
        found[name] = flip(found[name], bit=3, element=5)
    (finding,) = mutant.new(deep=True)
    assert finding.code == "CK601"
    assert [place.tensor for place in finding.locations] == [name]
