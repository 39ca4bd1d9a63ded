"""`check --deep` on real AWQ exports: faults of one scale tensor or one bit, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from build import Spec
from mutate import SINGLE, Mutant, flip, tensors

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
