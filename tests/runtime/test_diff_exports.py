"""Real ModelOpt exports of every format are as near to their base as the format allows."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from build import Spec
from mutate import flip, read_tensors, tensors

import ckptdiff
from ckptdiff.quant.arrays import Array
from ckptdiff.quant.registry import dequantise
from ckptdiff.records.delta import DiffReport, TensorDelta
from tests.exports import Cell, base_of, cells
from tests.unit.quant.checkpoints import linears

CELLS = cells("ci")

pytestmark = pytest.mark.timeout(1500)

# Decibels that are typical of a format with normally distributed weights, such as this corpus
# has: trained ones, with their outliers, cost INT8 three and INT4 two.
TYPICAL = {
    "fp8": 31.5, "fp8-channel": 31.8, "fp8-block": 31.5, "int8": 43.5, "nvfp4": 20.4,
    "nvfp4-32": 19.9, "mxfp8": 31.5, "mxfp4": 18.5, "int4": 17.9, "int4-fp8": 17.9,
}  # fmt: skip
# Smoothing trades the weight's error for the activation's, by as much as the data ask for.
SMOOTHED = {"int8_sq": (29.0, 44.5), "nvfp4_awq": (18.0, 21.4)}


def scheme(root: Path, percent: int) -> Path:
    return next(path for path in root.iterdir() if f"top{percent}_" in path.name)


def packed(report: DiffReport) -> list[TensorDelta]:
    return [row for row in report.tensors if row.b is not None and row.b.layout is not None]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_weight_is_as_near_as_its_format_allows(
    exports: dict[Cell, Path], corpus: Path, cell: Cell
) -> None:
    base, root = base_of(corpus, cell), exports[cell]
    for percent in (50, 100):
        report = ckptdiff.diff(base, scheme(root, percent))
        assert not report.unread and not report.total.unread and not report.total.shape
        rows = packed(report)
        assert len(rows) == report.total.dtype > 0
        for row in rows:
            assert row.b is not None and isinstance(row.sqnr_db, float), row.name
            middle = TYPICAL[str(row.b.layout)]
            low, high = SMOOTHED.get(cell.fmt, (middle - 1, middle + 1))
            assert low <= row.sqnr_db <= high, row
        # What is not quantized is base's, but for what AWQ folds.
        changed = [row.name for row in report.tensors if row.status == "changed"]
        assert all("awq" in cell.fmt and "norm" in name for name in changed)
        added = [row.name for row in report.tensors if row.status == "only_b"]
        assert all(name.endswith((".k_scale", ".v_scale")) for name in added)


@pytest.mark.parametrize(
    "cell", [c for c in CELLS if "awq" not in c.fmt], ids=lambda cell: cell.name
)
def test_numbers_are_those_of_float64(
    exports: dict[Cell, Path], corpus: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By numpy, and by the compiled pass that large checkpoints get."""
    base, path = base_of(corpus, cell), scheme(exports[cell], 100)
    rows = {row.name: [row] for row in ckptdiff.diff(base, path).tensors}
    monkeypatch.setattr("ckptdiff.jobs.differing._WORTH_COMPILING", 0)
    for row in ckptdiff.diff(base, path).tensors:
        rows[row.name].append(row)
    for linear in linears(path, base):
        x = linear.base.astype(np.float64).reshape(-1)
        y = dequantise(linear.layout, linear.codes, linear.scales).astype(np.float64).reshape(-1)
        d = y - x
        for row in rows[f"{linear.name}.weight"]:
            near(row, x, y, d)


@pytest.mark.parametrize("fmt", ["int4_awq", "nvfp4_awq"])
def test_behind_a_norm_of_zeros_nothing_is_left(
    exports: dict[Cell, Path], corpus: Path, tmp_path: Path, fmt: str
) -> None:
    cell = Cell("llama", False, "bf16", fmt)
    path = Path(shutil.copytree(scheme(exports[cell], 100), tmp_path / "zero"))
    with tensors(path) as found:
        name = "model.layers.1.post_attention_layernorm.weight"
        found[name] = Spec(found[name].dtype, found[name].shape, "", bytes(len(found[name].data())))
    report = ckptdiff.diff(base_of(corpus, cell), path)
    rows = {row.name: row.sqnr_db for row in report.tensors}
    for leaf in ("gate_proj", "up_proj"):
        assert rows[f"model.layers.1.mlp.{leaf}.weight"] == pytest.approx(0, abs=1e-6)
        other = rows[f"model.layers.2.mlp.{leaf}.weight"]
        assert isinstance(other, float) and other > 15


def near(row: TensorDelta, x: Array, y: Array, d: Array) -> None:
    assert row.max_abs == pytest.approx(np.abs(d).max(), rel=1e-6)
    assert row.rel_error == pytest.approx(np.sqrt((d @ d) / (x @ x)), rel=1e-5)
    assert row.sqnr_db == pytest.approx(10 * np.log10((x @ x) / (d @ d)), abs=1e-3)
    cosine = (d @ d - (np.sqrt(y @ y) - np.sqrt(x @ x)) ** 2) / (2 * np.sqrt((x @ x) * (y @ y)))
    assert row.cosine_distance == pytest.approx(cosine, rel=1e-4)
    assert row.changed_share == (d != 0).mean()


FAULTS = [cell for cell in CELLS if cell.arch == "llama" and not cell.tied and cell.dtype == "bf16"]


@pytest.mark.parametrize("cell", FAULTS, ids=lambda cell: cell.name)
def test_faults_are_found_and_located(
    exports: dict[Cell, Path], cell: Cell, tmp_path: Path
) -> None:
    """One flipped bit of a code, one doubled scale, one scale of another layer."""
    healthy = scheme(exports[cell], 100)
    # In a mixed scheme, scales of one layer need not fit another.
    module = f"model.layers.1.{'self_attn.q_proj' if cell.fmt == 'mixed' else 'mlp.down_proj'}"
    stored = read_tensors(healthy / "model.safetensors")
    scale = f"{module}.weight_scale"
    doubled = stored[scale]
    like = [
        spec
        for name, spec in stored.items()
        if name.endswith(".weight_scale")
        and name != scale
        and (spec.dtype, spec.shape) == (doubled.dtype, doubled.shape)
    ]
    raw = bytearray(doubled.data())
    if doubled.dtype == "F32":
        (value,) = struct.unpack("<f", raw[:4])
        raw[:4] = struct.pack("<f", 2 * value)
    else:  # E4M3 and E8M0 double by their exponents
        raw[0] += 8 if doubled.dtype == "F8_E4M3" else 1
    faults = {
        "bit": (f"{module}.weight", flip(stored[f"{module}.weight"], bit=0, element=5), "codes"),
        "double": (scale, Spec(doubled.dtype, doubled.shape, "", bytes(raw)), ""),
        "stale": (scale, like[-1], ""),
    }
    for name, (tensor, spec, cause) in faults.items():
        path = Path(shutil.copytree(healthy, tmp_path / name))
        with tensors(path) as found:
            found[tensor] = spec
        report = ckptdiff.diff(healthy, path)
        different = {row.name: row for row in report.tensors if row.status != "same"}
        row = different.pop(f"{module}.weight")
        assert row.status == "changed" and row.cause == (cause or "scales"), name
        assert list(different) == ([] if name == "bit" else [scale]), name
        assert row.first_difference is not None
        if name == "bit":
            assert row.changed_share == pytest.approx(1 / np.prod(row.a.shape))  # type: ignore[union-attr]
