"""Proving a scheme: what cannot be looked at is told apart, with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from build import Spec, config, write_json, write_weights

import ckptdiff
from ckptdiff.events import Event, Started
from ckptdiff.jobs.proving import STAGE
from ckptdiff.records.proof import Proof
from ckptdiff.records.report import CheckReport
from tests.unit.jobs.provable import (
    HIDDEN,
    LAYERS,
    WIDE,
    base_tensors,
    names,
    packed,
    proofs,
    write,
)

pytestmark = pytest.mark.usefixtures("only_mtime_settles")


def unreadable(root: Path, spoil: Callable[[], None]) -> CheckReport:
    """The report when something happens just before weights are recomputed."""

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.stage == STAGE:
            spoil()

    return ckptdiff.check(root, base=root.parent / "base", deep=True, sink=sink, jobs=1)


@pytest.mark.parametrize("side", ["scheme", "base"])
@pytest.mark.parametrize("what", ["written", "gone", "cut"])
def test_what_changes_meanwhile_is_unread(tmp_path: Path, side: str, what: str) -> None:
    root = write(tmp_path)
    path = (root / "fp8_21" if side == "scheme" else tmp_path / "base") / "model.safetensors"

    def spoil() -> None:
        if what == "gone":
            path.unlink(missing_ok=True)
        elif what == "cut":
            os.truncate(path, path.stat().st_size // 2)
        else:
            os.utime(path)

    report = unreadable(root, spoil)
    assert ckptdiff.exit_code(report) == 2 and not report.verdict.complete
    assert {f.code for f in report.findings} <= {"CK307", "CK406"}
    found = {item.path: item.reason for item in report.unread}
    assert "fp8_21/model.safetensors" in found
    reason = found["fp8_21/model.safetensors"]
    assert ("the base's model.safetensors" in reason) == (side == "base")
    assert "fp8_21" not in report.verdict.safe
    (row,) = (row for row in report.schemes if row.id == "fp8_21")
    assert row.status == "unread" and row.proof is not None
    # What the smaller scheme has too is known by its digests.
    assert row.proof.unknown >= 11 and row.proof.unknown + row.proof.proven == 21


def test_another_exporter_s_weights_are_passed_over(tmp_path: Path) -> None:
    root = write(tmp_path)
    for path in root.iterdir():
        (path / "hf_quant_config.json").unlink()
        quantization = {"quant_method": "compressed-tensors", "format": "float-quantized"}
        write_json(path / "config.json", config(LAYERS, quantization))
    found = proofs(root)
    assert {(p.status, p.reason) for p in found.values()} == {
        ("unknown", "it was quantized by compressed-tensors")
    }
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True)
    assert ckptdiff.exit_code(report) == 0
    skipped = {(s.code, s.scheme) for s in report.skipped if "compressed-tensors" in s.reason}
    assert {("CK207", path.name) for path in root.iterdir()} <= skipped


def edited(root: Path, change: Callable[[dict[str, Spec]], None]) -> dict[str, Proof]:
    tensors = packed("fp8", names())
    change(tensors)
    write_weights(root / "fp8_21", tensors)
    return proofs(root)


def test_obstacles_have_reasons(tmp_path: Path) -> None:
    root = write(tmp_path)
    q, o = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj"

    def change(found: dict[str, Spec]) -> None:
        del found[f"{q}.weight_scale"]
        found[f"{o}.weight"] = Spec("F8_E4M3", (HIDDEN // 2, HIDDEN), "o")
        nan = np.float32(np.nan).tobytes()
        found[f"{names()[4]}.weight_scale"] = Spec("F32", (), "", nan)
        found["lm_head.weight"] = Spec("F8_E4M3", (32, HIDDEN), "head")
        found["lm_head.weight_scale"] = found["lm_head.input_scale"] = Spec("F32", (), "scale")

    found = edited(root, change)
    reasons = {key: proof.reason for key, proof in found.items() if proof.status == "unknown"}
    assert reasons == {
        "layers.0.self_attn.q_proj": "its scales are missing or do not go with it",
        "layers.0.self_attn.o_proj": "its shape is not that of the base's weight",
        "layers.0.mlp.gate_proj": "its weight_scale has values that no scale can have",
        "lm_head": "the base has no such weight",
    }
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True)
    skipped = [s for s in report.skipped if s.code == "CK207" and s.scheme == "fp8_21"]
    assert len(skipped) == 4 and all(s.reason.startswith("1 quantized") for s in skipped)
    assert {f.code for f in report.findings} & {"CK207", "CK208", "CK209", "CK210"} == set()


@pytest.mark.parametrize("layout", ["fp8", "nvfp4"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_base_weight_of_no_use(layout: str, lost: bool, tmp_path: Path) -> None:
    """NaN in the base is as bad as a file that cannot be read; and those that share a scale with
    that weight are not accused of having it."""
    root = write(tmp_path, layout)
    base = base_tensors()
    key = "layers.0.self_attn.v_proj"  # the largest of its group
    name = f"model.{key}"
    whole = base.pop(f"{name}.weight")
    if not lost:
        values = bytearray(whole.data())
        values[:2] = b"\xc0\x7f"  # NaN in BF16
        base[f"{name}.weight"] = replace(whole, raw=bytes(values))
    write_weights(tmp_path / "base", base)
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True, cache=False)
    assert {f.code for f in report.findings if f.severity != "info"} == (
        {"CK603"} if lost else set()
    )
    told = [(u.path.partition("/")[0], u.reason) for u in report.unread]
    reason = f"{key}: the base's weight is of no use: it holds NaN or infinity"
    schemes = (f"{layout}_10", f"{layout}_21")
    assert sorted(told) == ([] if lost else [(scheme, reason) for scheme in schemes])
    skipped = [s.reason for s in report.skipped if s.code == "CK207" and s.scheme == schemes[1]]
    assert any("which may share it, is of no use" in s for s in skipped) is (layout == "nvfp4")


def test_an_all_zero_weight_is_told_once(tmp_path: Path) -> None:
    """ModelOpt gives a base weight of zeros a scale of 0 and NaN for codes."""
    root = write(tmp_path)
    name = "model.layers.1.mlp.up_proj"
    base = base_tensors()
    base[f"{name}.weight"] = replace(base[f"{name}.weight"], raw=bytes(2 * WIDE * HIDDEN))
    write_weights(tmp_path / "base", base)
    for path in root.iterdir():
        found = packed("fp8", names()[: int(path.name.partition("_")[2])])
        if f"{name}.weight_scale" in found:
            found[f"{name}.weight"] = replace(found[f"{name}.weight"], raw=b"\x7f" * WIDE * HIDDEN)
            found[f"{name}.weight_scale"] = Spec("F32", (), "", bytes(4))
        else:
            found[f"{name}.weight"] = base[f"{name}.weight"]
        write_weights(path, found)
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True)
    assert {f.code for f in report.findings if f.severity == "error"} == {"CK203", "CK205"}
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True, hashes=False)
    assert {f.code for f in report.findings if f.severity == "error"} == set()
    assert [s.reason for s in report.skipped if s.code == "CK207"] == [
        "1 quantized weights were not recomputed: "
        "its weight_scale has values that no scale can have"
    ]
