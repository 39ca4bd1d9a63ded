"""`reexport --engine modelopt|autoquant` with the real ModelOpt, on a CPU."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mutate import (
    baseline_path,
    coverage_path,
    document,
    excluded,
    flip,
    quantization,
    read_tensors,
    reshape,
    tensors,
)

import ckptdiff
from ckptdiff import api
from ckptdiff.records.export import Score
from tests.runtime.engine_runs import FORMATS, SINGLE, Bench, different, order_of, plan, run

pytestmark = pytest.mark.timeout(1500)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_repaired_scheme_is_clean(bench: Bench, fmt: str) -> None:
    scheme = bench.export(fmt, 50)
    report = ckptdiff.check(scheme, base=bench.base, deep=True, require=("base", "manifest"))
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report.verdict.status == "pass" and report.verdict.complete
    (row,) = report.schemes
    assert row.declared is not None and row.actual is not None
    assert row.declared.selected == row.actual.quantized > 0
    assert row.actual.quantized < row.actual.total
    assert not list(scheme.rglob("*.pt"))
    assert (scheme / "tokenizer.json").read_bytes() == (bench.base / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("fmt", [*FORMATS, "nvfp4"])
def test_modelopt_and_compose_agree_byte_for_byte(bench: Bench, fmt: str, tmp_path: Path) -> None:
    """Both start from the stub; the donor is ModelOpt's export of all layers on the same data."""
    donor = bench.export(fmt, 100)
    composed = run(bench, bench.stub(fmt, 50), "compose", tmp_path, donors=[donor])
    assert different(Path(composed.target), bench.export(fmt, 50)) == []
    assert different(Path(composed.target), donor) != []


def lose_scale(scheme: Path, donor: Path) -> None:
    with tensors(scheme) as found:
        del found[next(name for name in found if name.endswith("weight_scale"))]


def misshape_scale(scheme: Path, donor: Path) -> None:
    with tensors(scheme) as found:
        name = next(name for name in found if name.endswith("weight_scale"))
        found[name] = reshape(found[name], 7, 5)


def flip_code(scheme: Path, donor: Path) -> None:
    with tensors(scheme) as found:
        name = next(name for name in found if f"{name}_scale" in found)
        found[name] = flip(found[name], element=5)


def quantize_too_much(scheme: Path, donor: Path) -> None:
    shutil.copyfile(donor / SINGLE, scheme / SINGLE)


def dequantize(scheme: Path, donor: Path) -> None:
    """One module as base has it, all its scales gone."""
    with tensors(scheme) as found:
        module = next(n for n in found if f"{n}_scale" in found).removesuffix(".weight")
        original = read_tensors(donor.parents[1] / "base" / SINGLE)[f"{module}.weight"]
        for name in [name for name in found if name.startswith(f"{module}.")]:
            del found[name]
        found[f"{module}.weight"] = original


def cut_short(scheme: Path, donor: Path) -> None:
    size = (scheme / SINGLE).stat().st_size
    os.truncate(scheme / SINGLE, size // 2)


def lose_weights(scheme: Path, donor: Path) -> None:
    (scheme / SINGLE).unlink()


def exclude_wrongly(scheme: Path, donor: Path) -> None:
    with excluded(scheme) as names:
        names.append("model.layers.2.self_attn.o_proj")


def lose_exclusions(scheme: Path, donor: Path) -> None:
    with quantization(scheme) as parts:
        for part in parts:
            part.pop("exclude_modules", None)
            part.pop("ignore", None)


FAULTS = (
    lose_scale,
    misshape_scale,
    flip_code,
    quantize_too_much,
    dequantize,
    cut_short,
    lose_weights,
    exclude_wrongly,
    lose_exclusions,
)
# One code of AWQ is nothing that could be told from its search.
SEEN = [(fmt, fault) for fmt in FORMATS for fault in FAULTS
        if not (fmt == "int4_awq" and fault is flip_code)]  # fmt: skip


@pytest.mark.parametrize(
    ("fmt", "fault"), SEEN, ids=lambda value: getattr(value, "__name__", value)
)
def test_every_fault_is_repaired_by_the_same_export(
    bench: Bench, fmt: str, fault: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """What is ordered follows from manifest, config and base alone: an export that is clean for
    one fault is clean for all of them."""
    healthy, donor = bench.export(fmt, 50), bench.export(fmt, 100)
    broken = tmp_path / "quantized" / healthy.name
    shutil.copytree(healthy, broken)
    fault(broken, donor)
    report = ckptdiff.check(broken, base=bench.base, deep=True)
    assert {f.severity for f in report.findings} & {"error", "warning"}
    wanted = order_of(plan(bench, bench.stub(fmt, 50), "modelopt", tmp_path / "a"))
    assert order_of(plan(bench, broken, "modelopt", tmp_path / "b")) == wanted


def test_a_lost_config_needs_a_preset_and_then_gives_the_same_bytes(
    bench: Bench, tmp_path: Path
) -> None:
    """The same seed and data give the same bytes, whatever was wrong before."""
    broken = tmp_path / "quantized" / bench.export("fp8", 50).name
    shutil.copytree(bench.export("fp8", 50), broken)
    (broken / "hf_quant_config.json").unlink()
    with document(broken / "config.json") as config:
        del config["quantization_config"]
    refused = plan(bench, broken, "modelopt", tmp_path / "out").report.plans[0]
    assert not refused.possible and "--preset" in refused.missing[0].reason
    options = replace(bench.options, preset="FP8_DEFAULT_CFG")
    again = run(bench, broken, "modelopt", tmp_path / "out", options=options)
    assert different(Path(again.target), bench.export("fp8", 50)) == []


@pytest.mark.parametrize(("fmt", "score"), [("fp8", "gradient"), ("int8", "kl_div")])
def test_autoquant_at_the_least_bits_is_modelopt(
    bench: Bench, fmt: str, score: Score, tmp_path: Path
) -> None:
    """Without a baseline as well: what the search ranks is not taken for what the scheme was
    cut from."""
    scheme = bench.stub(fmt, 50)
    if fmt == "int8":
        scheme = shutil.copytree(scheme, tmp_path / "stubs" / scheme.name)
        baseline_path(scheme).unlink()
    options = replace(bench.options, score=score)
    made = Path(run(bench, scheme, "autoquant", tmp_path, options=options).target)
    assert different(made, bench.export(fmt, 50), manifests=False) == []
    manifest = json.loads((made / f"layer-sensitivity/{made.name}_autoquant.json").read_text())
    assert manifest["scheme"]["auto_quantize_method"] == score
    selected = json.loads(coverage_path(made).read_text())["selected_layers"]
    ranked = [entry["name"] for entry in manifest["sensitivity_ranking"]]
    assert {f"model.{name}" for name in ranked} == set(selected)
    importances = [entry["importance"] for entry in manifest["sensitivity_ranking"]]
    assert importances == sorted(importances) and importances[-1] > 0
    assert 8 < manifest["scheme"]["auto_quantize_bits"] < 16
    quantized = [layer["quantized"] for layer in manifest["layers"].values()]
    assert manifest["num_quantized_layers"] == sum(quantized) < len(quantized)
    report = (made / "layer-sensitivity/per-layer-sensitivity.md").read_text()
    assert all(f"| `{name.removesuffix('.quant_recipe')}` |" in report for name in ranked)
    assert not list(made.rglob("*.pt"))


def test_auto_takes_what_is_proven(bench: Bench, tmp_path: Path) -> None:
    donor = bench.export("fp8", 100)
    by = plan(bench, bench.stub("fp8", 50), "auto", tmp_path, donors=[donor]).report.plans[0]
    assert by.engine == "compose" and by.possible
    alone = plan(bench, bench.stub("fp8", 50), "auto", tmp_path).report.plans[0]
    assert alone.engine == "modelopt" and "no donor has" in alone.why
    awq = bench.export("int4_awq", 100)
    weak = plan(bench, bench.stub("int4_awq", 50), "auto", tmp_path, donors=[awq]).report.plans[0]
    assert weak.engine == "modelopt" and "could not be proven" in weak.why


def test_from_a_bare_model_to_a_sweep(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With paths relative to here, which are not those of the child."""
    monkeypatch.chdir(bench.base.parent)
    options = replace(bench.options, calib="rows.jsonl")
    out = Path(os.path.relpath(tmp_path / "q"))
    planned = api.plan_baseline("base", top=(10, 50, 100), bits=12, out=out, options=options)
    assert [plan.engine for plan in planned.report.plans] == ["autoquant", *["compose"] * 3]
    report = api.execute_baseline(planned, cache=False)
    assert [outcome.status for outcome in report.outcomes] == ["written"] * 4
    names = sorted(path.name for path in (tmp_path / "q").iterdir())
    family = "fp8_autoquant_all_layers"
    assert names == [f"{family}_{last}" for last in
                     ("fp8_rows", "top100_rows", "top10_rows", "top50_rows")]  # fmt: skip
    found = ckptdiff.check(tmp_path / "q", base=bench.base, deep=True)
    assert [f for f in found.findings if f.severity != "info"] == []
    assert found.verdict.status == "pass" and found.verdict.complete
    counts = {row.id: row.actual.quantized for row in found.schemes if row.actual}
    assert counts[f"{family}_top100_rows"] == 21 and counts[f"{family}_top10_rows"] < 8
    bits = {row.id: row.actual.effective_bits for row in found.schemes if row.actual}
    assert bits[f"{family}_fp8_rows"] <= 12.01  # type: ignore[operator]
