"""`check --deep` on real exports of every format: clean when they are, and every fault found."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from build import Spec
from mutate import SINGLE, Mutant, flip, of_module, read_tensors, tensors, weights_of
from requantising import rows_of

import ckptdiff
from ckptdiff.quant.arrays import as_array
from ckptdiff.quant.dialects import Dialect
from ckptdiff.quant.registry import ClosedForm, closed_form, requantised
from ckptdiff.records.finding import Location
from ckptdiff.records.report import ProofRow, SchemeRow
from tests.exports import Cell, base_of, cells
from tests.unit.quant.checkpoints import Linear, fused, linears

CELLS = cells("ci")
FAULTY = [cell for cell in CELLS if cell.dtype == "bf16" and not cell.tied]
HOSTS = {"bf16": "BF16", "f16": "F16", "f32": "F32"}

AWQ = ("int4_awq", "w4a8_awq", "nvfp4_awq")
SEARCHED = ("int8_sq", *AWQ)
NVFP4 = ("nvfp4", "w4a16_nvfp4", "w4a8_nvfp4_fp8")
MX = ("mxfp8", "mxfp4", "w4a8_mxfp4_fp8")


def dialects(cell: Cell, host: str, device: str) -> tuple[tuple[str, ...], ...]:
    """What may be said of who wrote an export. Powers of two do not tell the device, and the
    few scales of whole NVFP4 weights need not."""
    known, unknown = (f"{host} {device}",), (host,)
    if cell.fmt in MX:
        return (unknown,)
    return (known, unknown) if cell.fmt in NVFP4 else (known,)


pytestmark = pytest.mark.timeout(1500)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_healthy_export_is_proven(exports: dict[Cell, Path], cell: Cell) -> None:
    """All of it, and where calibration data came in, nothing is far from base."""
    report = ckptdiff.check(exports[cell], deep=True)
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report.verdict.status == "pass" and report.verdict.complete
    assert len(report.verdict.safe) == len(report.schemes) == 2
    assert not [skip for skip in report.skipped if skip.code == "CK207"]
    for row in report.schemes:
        proof = _proof(row)
        assert row.actual is not None
        assert proof.proven + proof.searched == row.actual.quantized
        assert (proof.wrong, proof.unknown) == (0, 0)
        # Of SmoothQuant, fused experts are not smoothed.
        if cell.fmt not in SEARCHED:
            assert proof.searched == 0
        elif cell.fmt in AWQ or cell.arch != "qwen3_moe":
            assert proof.proven == 0
        if proof.proven:
            assert proof.dialects in dialects(cell, HOSTS[cell.dtype], "cpu")


def _proof(row: SchemeRow) -> ProofRow:
    assert row.proof is not None
    return row.proof


# What a GPU would have written


@pytest.mark.parametrize("host", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(
    "fmt", ["fp8", "fp8_pcpt", "fp8_pb_wo", "int8", "nvfp4", "w4a8_nvfp4_fp8", "mxfp8", "mxfp4"]
)
def test_an_export_by_cuda_is_proven(
    exports: dict[Cell, Path], fmt: str, host: str, tmp_path: Path
) -> None:
    """All weights packed anew as a model in `host` on a GPU would have been."""
    cell = Cell("llama", False, "bf16", fmt)
    root = tmp_path / "quantized"
    shutil.copytree(exports[cell], root)
    base = base_of(exports[cell].parents[1], cell)
    (scheme,) = root.glob("*top100*")
    dialect = Dialect(host, "cuda")  # type: ignore[arg-type]
    with tensors(scheme) as found:
        for name, spec in _packed_anew(linears(scheme, base), dialect):
            found[name] = replace(found[name], raw=spec)
    report = ckptdiff.check(root, base=base, deep=True)
    assert {f.code for f in report.findings if f.severity != "info"} == set()
    (row,) = (row for row in report.schemes if row.id == scheme.name)
    assert _proof(row).proven == 21
    # A BF16 base is the same numbers in float32, and nearly so in F16: only the codes of FP8
    # with one scale show which one it was.
    if fmt == "fp8":
        assert _proof(row).dialects == (f"{host} cuda",)
    else:
        one = {way for named in (host, "BF16") for way in dialects(cell, named, "cuda")}
        assert set(_proof(row).dialects) <= {way for ways in one for way in ways}
    gain = [f for f in report.findings if f.code == "CK212"]
    assert [f.schemes for f in gain] == [(scheme.name,)] * (fmt == "fp8" and host != "F32")


def _packed_anew(loaded: list[Linear], dialect: Dialect) -> Iterator[tuple[str, bytes]]:
    groups: dict[str, list[Linear]] = {}
    for linear in loaded:
        groups.setdefault(fused(linear), []).append(linear)
    for members in groups.values():
        form = closed_form(members[0].layout)
        assert isinstance(form, ClosedForm)
        amaxes = [form.amax(rows_of(member.base), dialect) for member in members]
        if members[0].layout.startswith("nvfp4"):
            amaxes = [np.maximum.reduce(amaxes)] * len(amaxes)
        for linear, amax in zip(members, amaxes, strict=True):
            rows = rows_of(linear.base)
            scales = form.scales(amax, rows, dialect)
            codes = [part for _, part in requantised(form, rows, scales, dialect)]
            yield f"{linear.name}.weight", np.concatenate(codes).tobytes()
            yield f"{linear.name}.weight_scale", scales.weight_scale.tobytes()
            if scales.weight_scale_2 is not None:
                yield f"{linear.name}.weight_scale_2", scales.weight_scale_2.tobytes()


# Faults


@dataclass(frozen=True)
class Fault:
    """`plant` changes the whole scheme's file and says where that is to be found."""

    code: str
    name: str
    plant: Callable[[dict[str, Spec], str, str], list[Location]]
    formats: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code}-{self.name}"


def code_bit(found: dict[str, Spec], module: str, other: str) -> list[Location]:
    """The lowest bit of a code, or of the upper one of two."""
    spec = found[f"{module}.weight"]
    found[f"{module}.weight"] = flip(spec, bit=4 if spec.dtype == "U8" else 0, element=777)
    return weights_of(module)


def high_bit(found: dict[str, Spec], module: str, other: str) -> list[Location]:
    """The highest bit of a magnitude: no rounding goes that far."""
    spec = found[f"{module}.weight"]
    found[f"{module}.weight"] = flip(spec, bit=6, element=777)
    return weights_of(module)


def rows_swapped(found: dict[str, Spec], module: str, other: str) -> list[Location]:
    """Two rows (in INT4 two pairs of rows) without their scales."""
    spec = found[f"{module}.weight"]
    array = as_array(spec.data(), spec.dtype, spec.shape).copy()
    array[[3, 9]] = array[[9, 3]]
    found[f"{module}.weight"] = replace(spec, raw=array.tobytes())
    return weights_of(module)


def another_layer(found: dict[str, Spec], module: str, other: str) -> list[Location]:
    """Weight and scales of another layer."""
    for name, spec in of_module(found, other).items():
        found[name.replace(other, module)] = spec
    return weights_of(module)


def zeros(found: dict[str, Spec], module: str, other: str) -> list[Location]:
    spec = found[f"{module}.weight"]
    found[f"{module}.weight"] = replace(spec, raw=bytes(spec.nbytes))
    return weights_of(module)


def doubled(suffix: str, place: str = "") -> Callable[..., list[Location]]:
    """One scale, or the middle one of many, times two: in F8_E4M3 and E8M0 one exponent more.

    `place`: the tensor at which that is to be found.
    """

    def plant(found: dict[str, Spec], module: str, other: str) -> list[Location]:
        spec = found[f"{module}.{suffix}"]
        array = as_array(spec.data(), spec.dtype, spec.shape).copy().reshape(-1)
        element = slice(None) if place else slice(array.size // 2, array.size // 2 + 1)
        if spec.dtype in ("F8_E4M3", "U8"):
            array[element] += 8 if spec.dtype == "F8_E4M3" else 1
        else:
            array[element] *= 2
        found[f"{module}.{suffix}"] = replace(spec, raw=array.tobytes())
        return [Location(module=module, tensor=f"{module}.{place or suffix}", shard=SINGLE)]

    return plant


def from_another_layer(suffix: str) -> Callable[..., list[Location]]:
    def plant(found: dict[str, Spec], module: str, other: str) -> list[Location]:
        found[f"{module}.{suffix}"] = found[f"{other}.{suffix}"]
        return [Location(module=module, tensor=f"{module}.{suffix}", shard=SINGLE)]

    return plant


def cut_off(found: dict[str, Spec], module: str, other: str) -> list[Location]:
    """Codes of INT4 for a scale that is too small for what is far from zero."""
    weight, scale = found[f"{module}.weight"], found[f"{module}.weight_scale"]
    packed = as_array(weight.data(), "U8", weight.shape)
    codes = np.stack([(packed << 4).view(np.int8) >> 4, packed.view(np.int8) >> 4], axis=1)
    codes = np.clip(np.rint(codes.astype(np.float32) / SMALLER), -8, 7).astype(np.int8)
    nibbles = codes.view(np.uint8) & 15
    found[f"{module}.weight"] = replace(weight, raw=(nibbles[:, 0] | nibbles[:, 1] << 4).tobytes())
    smaller = SMALLER * as_array(scale.data(), "F32", scale.shape)
    found[f"{module}.weight_scale"] = replace(scale, raw=smaller.astype(np.float32).tobytes())
    return weights_of(module)


SMALLER = np.float32(0.4)
PROVEN = tuple(sorted({cell.fmt for cell in CELLS} - {*SEARCHED, "mixed"}))
FAULTS = (
    Fault("CK207", "code-bit", code_bit, PROVEN),
    Fault("CK207", "another-layer", another_layer, PROVEN),
    Fault("CK207", "high-bit", high_bit, SEARCHED),
    Fault("CK207", "rows-swapped", rows_swapped, (*PROVEN, *SEARCHED)),
    Fault("CK208", "doubled", doubled("weight_scale"), PROVEN),
    Fault("CK208", "another-layer", from_another_layer("weight_scale"), PROVEN),
    Fault("CK208", "second-doubled", doubled("weight_scale_2"), NVFP4),
    Fault("CK208", "second-another-layer", from_another_layer("weight_scale_2"), NVFP4),
    Fault("CK209", "doubled", doubled("weight_scale", "weight"), ("int8_sq", "int4_awq")),
    Fault("CK209", "doubled", doubled("weight_scale", "weight"), ("w4a8_awq",)),
    Fault("CK209", "doubled", doubled("weight_scale_2", "weight"), ("nvfp4_awq",)),
    Fault("CK209", "smoothing-doubled", doubled("pre_quant_scale", "weight"), SEARCHED),
    Fault("CK209", "another-layer", another_layer, SEARCHED),
    Fault("CK210", "zeros", zeros, (*PROVEN, *SEARCHED)),
    Fault("CK211", "cut-off", cut_off, ("int4_awq", "w4a8_awq")),
)
CASES = [
    pytest.param(cell, fault, id=f"{cell.arch}-{cell.fmt}-{fault}")
    for cell in FAULTY
    for fault in FAULTS
    if cell.fmt in fault.formats
]


@pytest.mark.parametrize(("pristine", "fault"), CASES, indirect=["pristine"])
def test_one_fault_one_code(mutant: Mutant, fault: Fault) -> None:
    """In o_proj, which is alone in its group and smoothed by a factor of its own."""
    scheme = mutant[100]
    with tensors(scheme) as found:
        places = fault.plant(
            found, "model.layers.1.self_attn.o_proj", "model.layers.2.self_attn.o_proj"
        )
    mutant.expect(fault.code, scheme, places)


@pytest.mark.parametrize(
    "pristine",
    [cell for cell in FAULTY if cell.fmt in (*NVFP4, "fp8_pb_wo", "mixed")],
    ids=lambda cell: cell.name,
    indirect=True,
)
def test_a_scale_that_a_group_shares(mutant: Mutant) -> None:
    """Of one member only: the others go on sharing the right one."""
    scheme = mutant[100]
    module = "model.layers.1.self_attn.k_proj"
    with tensors(scheme) as found:
        suffix = "weight_scale_2" if f"{module}.weight_scale_2" in found else "weight_scale"
        spec = found[f"{module}.{suffix}"]
        found[f"{module}.{suffix}"] = flip(spec, bit=18)
    place = Location(module=module, tensor=f"{module}.{suffix}", shard=SINGLE)
    mutant.expect("CK208", scheme, [place])


def test_scales_that_are_no_maxima_everywhere(exports: dict[Cell, Path], tmp_path: Path) -> None:
    """Another way of calibrating: codes that go with their scales are searched, not stale."""
    cell = Cell("llama", False, "bf16", "int8")
    root = tmp_path / "quantized"
    shutil.copytree(exports[cell], root)
    base = base_of(exports[cell].parents[1], cell)
    originals = read_tensors(base / SINGLE)
    for scheme in root.iterdir():
        with tensors(scheme) as found:
            for name in [name for name in found if name.endswith(".weight_scale")]:
                weight = name.removesuffix("_scale")
                spec = originals[weight]
                values = np.frombuffer(spec.data(), ml_dtypes.bfloat16).astype(np.float32)
                scale = np.frombuffer(found[name].data(), np.float32) * np.float32(1.1)
                codes = np.rint(values.reshape(spec.shape) / scale[:, None]).astype(np.int8)
                found[name] = replace(found[name], raw=scale.tobytes())
                found[weight] = replace(found[weight], raw=codes.tobytes())
    report = ckptdiff.check(root, base=base, deep=True)
    assert [f for f in report.findings if f.severity != "info"] == []
    for row in report.schemes:
        assert row.actual is not None
        assert (_proof(row).proven, _proof(row).searched) == (0, row.actual.quantized)
