"""Models that share scales otherwise than Llama does.

Gemma's norms multiply by one more than their weight, so that what AWQ folded into them is read off
otherwise. In Cohere's layers attention and MLP lie side by side behind one norm: all five linears
have one input, and so one second scale and one factor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mutate import Mutant, tensors

import ckptdiff
from ckptdiff.quant.arrays import as_array
from tests.exports import Cell, base_of, ensure

AWQ = ("int4_awq", "w4a8_awq", "nvfp4_awq")
CELLS = [Cell(arch, False, "bf16", fmt) for arch in ("gemma2", "cohere") for fmt in AWQ]
SHARED = [Cell("cohere", False, "bf16", fmt) for fmt in ("nvfp4", "w4a8_nvfp4_fp8")]
# As of other models: see test_diff_exports.
LOWEST = {"int4_awq": 16.9, "w4a8_awq": 16.9, "nvfp4_awq": 18.0, "nvfp4": 19.4,
          "w4a8_nvfp4_fp8": 18.9}  # fmt: skip
BEHIND = {
    "gemma2": [f"self_attn.{leaf}_proj" for leaf in "qkv"],
    "cohere": [*(f"self_attn.{leaf}_proj" for leaf in "qkv"), "mlp.gate_proj", "mlp.up_proj"],
}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def built(corpus: Path) -> dict[Cell, Path]:
    return ensure(corpus, CELLS + SHARED)


@pytest.mark.parametrize("cell", CELLS + SHARED, ids=lambda cell: cell.name)
def test_an_export_is_as_near_as_others_and_clean(
    built: dict[Cell, Path], corpus: Path, cell: Cell
) -> None:
    base, root = base_of(corpus, cell), built[cell]
    for scheme in root.iterdir():
        report = ckptdiff.diff(base, scheme)
        rows = [row for row in report.tensors if row.b is not None and row.b.layout]
        assert rows and all(
            isinstance(row.sqnr_db, float) and row.sqnr_db > LOWEST[cell.fmt] for row in rows
        )
    report = ckptdiff.check(root, base=base, deep=True)
    assert report.verdict.status == "pass" and report.verdict.complete
    assert [f for f in report.findings if f.severity != "info"] == []
    if cell in SHARED:
        assert all(row.proof and not row.proof.searched for row in report.schemes)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@pytest.mark.parametrize("how", ["base's", "rolled"])
def test_another_norm(
    built: dict[Cell, Path], corpus: Path, tmp_path: Path, cell: Cell, how: str
) -> None:
    mutant = Mutant.of(built[cell], base_of(corpus, cell), tmp_path, ways=((True, True),))
    name = "model.layers.1.input_layernorm.weight"
    with tensors(mutant.base) as found:
        original = found[name]
    with tensors(mutant[100]) as found:
        values = as_array(found[name].data(), "BF16", found[name].shape)
        raw = {
            "base's": original.data(),
            "rolled": np.roll(values, 1).tobytes(),
        }[how]
        found[name] = replace(found[name], raw=raw)
    new = mutant.new(deep=True)
    assert {finding.code for finding in new} <= {"CK207", "CK208", "CK209"}
    told = {place.module for finding in new for place in finding.locations}
    assert told == {f"model.layers.1.{name}" for name in BEHIND[cell.arch]}
