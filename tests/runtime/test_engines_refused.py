"""What an engine cannot do is told before or after it ran, with the next step."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ckptdiff import api
from ckptdiff.errors import CapabilityError, UsageError
from ckptdiff.jobs import exporting
from tests.runtime.engine_runs import Bench, plan

pytestmark = pytest.mark.timeout(1500)


def test_a_model_that_modelopt_refuses(bench: Bench, tmp_path: Path) -> None:
    """INT4 AWQ does not pack the sample's linears: 96 inputs are no whole group of 128."""
    samples = Path(__file__).parents[2] / "samples"
    scheme = samples / "copied/fp8_autoquant_all_layers_top30_captions"
    options = replace(
        bench.options, preset="INT4_BLOCKWISE_WEIGHT_ONLY_CFG", calib=None, calib_samples=2
    )
    planned = api.plan_reexport(
        [scheme], engine="modelopt", base=samples / "base", out=tmp_path, options=options
    )
    report = api.execute(planned)
    (outcome,) = report.outcomes
    assert outcome.status == "failed" and "this model" in str(outcome.reason)
    assert api.exit_code(report) == 4
    said = re.match(r"Read its output in (\S+), which ends:\n", str(outcome.next_step))
    assert said is not None, outcome.next_step
    log = Path(said[1])
    assert "Traceback" in log.read_text()
    log.unlink()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset(bench: Bench, tmp_path: Path) -> None:
    stub = bench.stub("fp8", 50)
    for name in ("FP7_CFG", "FP8", "fp8_default_cfg", ""):
        options = replace(bench.options, preset=name)
        with pytest.raises(UsageError, match=f"no preset {name}") as raised:
            plan(bench, stub, "auto", tmp_path, options=options)
        assert "FP8_DEFAULT_CFG, " in raised.value.next_step
    # Assigned, and no preset: only ModelOpt itself can tell.
    options = replace(bench.options, preset="BiasType")
    report = api.execute(plan(bench, stub, "modelopt", tmp_path, options=options))
    assert "no preset BiasType" in str(report.outcomes[0].reason)
    assert list(tmp_path.iterdir()) == []


def test_compose_has_no_use_for_data(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="composing runs no model"):
        plan(bench, bench.stub("fp8", 50), "compose", tmp_path, options=bench.options)


def test_without_modelopt(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, with what brings it; auto falls back and says so."""
    lacking = replace(exporting.PROGRAM, packages=("torch", "no_such_modelopt"))
    monkeypatch.setattr(exporting, "PROGRAM", lacking)
    monkeypatch.setattr("ckptdiff.api.exporting.PROGRAM", lacking)
    with pytest.raises(CapabilityError) as caught:
        plan(bench, bench.stub("fp8", 50), "modelopt", tmp_path)
    assert caught.value.exit_code == 3
    assert "needs no_such_modelopt" in caught.value.message
    assert "ckptdiff[probe,modelopt]" in caught.value.next_step
    alone = plan(bench, bench.stub("fp8", 50), "auto", tmp_path).report.plans[0]
    assert alone.engine == "compose" and not alone.possible
    assert any("no_such_modelopt" in note for note in alone.notes)


def test_a_row_that_is_none_is_named_before_anything_is_loaded(
    bench: Bench, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "fine"}\n{"txt": "not"}\n')
    with pytest.raises(UsageError, match=r"line 2 of .*rows\.jsonl"):
        plan(bench, bench.stub("fp8", 50), "modelopt", tmp_path,
             options=replace(bench.options, calib=str(rows)))  # fmt: skip
