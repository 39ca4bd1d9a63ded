"""ModelOpt's own exports: the closed forms give their bytes, their values are near the base."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from requantising import requantise, rows_of

from ckptdiff.quant.arrays import Scales
from ckptdiff.quant.dialects import ALL, Dialect
from ckptdiff.quant.registry import ClosedForm, Unprovable, closed_form, dequantise
from tests.exports import Cell, base_of
from tests.unit.quant.checkpoints import Linear, fused, linears, tensors
from tests.unit.quant.conftest import CELLS

pytestmark = pytest.mark.timeout(1800)

PROVABLE = [cell for cell in CELLS if "awq" not in cell.fmt and cell.fmt != "int8_sq"]
SEARCHED = [cell for cell in CELLS if cell not in PROVABLE]

# Decibels of the base over the error, measured over this corpus. Random weights are normal,
# which is kinder to INT8 than the outliers of trained ones.
SQNR = {
    "fp8": (30.3, 33.0),
    "fp8-channel": (30.3, 33.0),
    "fp8-block": (30.3, 33.0),
    "int8": (41.7, 45.3),
    "nvfp4": (19.3, 21.5),
    "nvfp4-32": (18.8, 20.9),
    "mxfp8": (30.4, 32.6),
    "mxfp4": (17.4, 19.6),
}
# int8_sq smooths, which costs; experts are not smoothed. In nvfp4_awq on a Llama, up_proj also
# carries down_proj's scale: those two are left out.
SEARCHED_SQNR = {
    "int8_sq": (29.0, 45.3),
    "int4_awq": (16.4, 19.6),
    "w4a8_awq": (16.4, 19.6),
    "nvfp4_awq": (18.0, 21.5),
}


def found(built: Path, cell: Cell) -> list[Linear]:
    scheme = next(p for p in (built / cell.name).iterdir() if "top100" in p.name)
    loaded = linears(scheme, base_of(built, cell))
    assert len(loaded) >= 20
    return loaded


def sqnr(linear: Linear, values: np.ndarray) -> float:
    base = linear.base.astype(np.float64)
    return float(10 * np.log10((base**2).sum() / ((values - base) ** 2).sum()))


def same(left: np.ndarray | None, right: np.ndarray | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def dialect_of(cell: Cell) -> Dialect:
    return Dialect({"bf16": "BF16", "f16": "F16", "f32": "F32"}[cell.dtype], "cpu")  # type: ignore[arg-type]


def shared_amax(cell: Cell, members: list[Linear], form: ClosedForm) -> list[np.ndarray]:
    """The statistic of each linear of a group; the maximum, where ModelOpt unifies it."""
    own = [form.amax(rows_of(member.base), dialect_of(cell)) for member in members]
    layout = members[0].layout
    # Fused experts hold gate and up in one tensor.
    experts = ".experts." in members[0].name
    unified = layout.startswith("nvfp4") or (layout == "fp8" and experts)
    return [np.maximum.reduce(own)] * len(own) if unified else own


@pytest.mark.parametrize("cell", PROVABLE, ids=lambda cell: cell.name)
def test_the_closed_forms_give_the_bytes_of_an_export(built: Path, cell: Cell) -> None:
    groups: dict[str, list[Linear]] = defaultdict(list)
    for linear in found(built, cell):
        groups[fused(linear)].append(linear)
    dialect = dialect_of(cell)
    wrong = []
    for members in groups.values():
        form = closed_form(members[0].layout)
        assert isinstance(form, ClosedForm)
        for linear, amax in zip(members, shared_amax(cell, members, form), strict=True):
            packed = requantise(linear.layout, rows_of(linear.base), dialect, amax)
            from_stored = form.codes(linear.base, linear.scales, dialect, 0)
            if not (
                same(packed.codes, linear.codes)
                and same(from_stored, linear.codes)
                and same(packed.scales.weight_scale, linear.scales.weight_scale)
                and same(packed.scales.weight_scale_2, linear.scales.weight_scale_2)
            ):
                wrong.append(linear.name)
    assert wrong == []


@pytest.mark.parametrize("cell", PROVABLE, ids=lambda cell: cell.name)
def test_the_values_are_as_near_to_the_base_as_the_format_allows(built: Path, cell: Cell) -> None:
    for linear in found(built, cell):
        low, high = SQNR[linear.layout]
        values = dequantise(linear.layout, linear.codes, linear.scales)
        assert low < sqnr(linear, values) < high, linear.name


@pytest.mark.parametrize("cell", SEARCHED, ids=lambda cell: cell.name)
def test_searched_formats_are_dequantised_and_not_proven(built: Path, cell: Cell) -> None:
    low, high = SEARCHED_SQNR[cell.fmt]
    scheme = next(p for p in (built / cell.name).iterdir() if "top100" in p.name)
    norms, originals = tensors(scheme), tensors(base_of(built, cell))
    for linear in found(built, cell):
        parent, _, leaf = linear.name.rpartition(".")
        if cell.fmt == "nvfp4_awq" and leaf in ("up_proj", "down_proj"):
            continue
        smoothed = linear.scales.pre_quant_scale is not None
        form = closed_form(linear.layout, smoothed)
        if smoothed or linear.layout.startswith("int4"):
            assert isinstance(form, Unprovable) and form.reason
        values = dequantise(linear.layout, linear.codes, linear.scales)
        # What is not beside the weight was folded into the norm in front of it.
        norm = {"q": "input", "k": "input", "v": "input", "g": "post_attention"}.get(leaf[0])
        norm = "post_attention" if leaf == "up_proj" else norm
        if cell.fmt != "int8_sq" and norm and not smoothed:
            name = f"{parent.rpartition('.')[0]}.{norm}_layernorm.weight"
            values *= (norms[name][1].astype("f4") / originals[name][1].astype("f4"))[None]
        assert low < sqnr(linear, values) < high, linear.name


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_only_the_right_dialect_explains_all_codes_of_fp8(built: Path, dtype: str) -> None:
    cell = Cell("llama", False, dtype, "fp8")
    form = closed_form("fp8")
    assert isinstance(form, ClosedForm)
    loaded = found(built, cell)
    holding = [
        dialect
        for dialect in ALL
        if all(same(form.codes(x.base, x.scales, dialect, 0), x.codes) for x in loaded)
    ]
    # In float32, T(s) is s: only the scales tell the two devices apart.
    wanted = [dialect_of(cell)] + ([Dialect("F32", "cuda")] if dtype == "f32" else [])
    assert holding == wanted
    scales = [
        dialect
        for dialect in ALL
        if all(
            same(
                form.scales(
                    form.amax(rows_of(x.base), dialect), rows_of(x.base), dialect
                ).weight_scale,
                x.scales.weight_scale,
            )
            for x in loaded
        )
    ]
    assert dialect_of(cell) in scales and not any(d.device == "cuda" for d in scales)


def test_another_base_is_not_taken_for_the_right_one(built: Path) -> None:
    cell = Cell("llama", False, "bf16", "int8")
    linear = found(built, cell)[0]
    other = linear.base.copy()
    other[0, 0] = -other[0, 0]
    packed = requantise("int8", rows_of(other), dialect_of(cell))
    assert not same(packed.codes, linear.codes)
    assert isinstance(packed.scales, Scales)
