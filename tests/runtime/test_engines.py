"""`reexport --engine modelopt|autoquant` with the real ModelOpt, on a CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from command import COMMAND, environment
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
from ckptdiff.errors import Cancelled, CapabilityError, UsageError
from ckptdiff.events import CancelToken, Event, Started
from ckptdiff.jobs import exporting
from ckptdiff.jobs.export_planning import ExportJob
from ckptdiff.jobs.resuming import NOTE
from ckptdiff.jobs.staging import reserved
from ckptdiff.records.export import ExportOptions, ExportOrder, Score
from ckptdiff.records.plan import Engine, Outcome, PlanReport
from tests.engines import write_base, write_rows, write_stub

SINGLE = "model.safetensors"
FORMATS = ("fp8", "int8", "int4_awq")

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A child on one processor: tiny tensors gain nothing from more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


class Bench:
    """A base, stubs of every format and what was exported from them, made when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = write_base(folder / "base")
        self.options = ExportOptions(calib=str(write_rows(folder / "rows.jsonl")))
        self._made: dict[tuple[str, int, Engine], Path] = {}

    def stub(self, fmt: str, percent: int) -> Path:
        found = self.folder / "stubs" / f"{fmt}_autoquant_all_layers_top{percent}"
        return found if found.exists() else write_stub(self.base, found.parent, fmt, percent)

    def export(self, fmt: str, percent: int, engine: Engine = "modelopt") -> Path:
        """The directory of a repaired scheme."""
        key = fmt, percent, engine
        if key not in self._made:
            out = self.folder / f"by-{engine}"
            self._made[key] = Path(run(self, self.stub(fmt, percent), engine, out).target)
        return self._made[key]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("engines"))


def plan(bench: Bench, scheme: Path, engine: Engine, out: Path, **keywords: object) -> api.Planned:
    options = keywords.pop("options", None if engine == "compose" else bench.options)
    return api.plan_reexport(
        [scheme],
        engine=engine,
        base=bench.base,
        out=out,
        options=options,
        **keywords,  # type: ignore[arg-type]
    )


def run(bench: Bench, scheme: Path, engine: Engine, out: Path, **keywords: object) -> Outcome:
    """Repair `scheme` into `out`; the outcome, which says that it is written."""
    (outcome,) = api.execute(plan(bench, scheme, engine, out, **keywords), cache=False).outcomes
    assert outcome.status == "written", outcome
    return outcome


def order_of(planned: api.Planned) -> ExportOrder:
    (job,) = planned.jobs
    assert isinstance(job, ExportJob) and job.order is not None, planned.report
    return job.order


def files(folder: Path) -> dict[str, bytes]:
    """Every file but those that say who made it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "provenance" not in path.name and "ensitivity." not in path.name
    }


def different(one: Path, other: Path, *, manifests: bool = True) -> list[str]:
    """Names of files that are not the same, byte for byte."""
    mine, theirs = files(one), files(other)
    names = sorted(mine.keys() | theirs.keys())
    kept = [name for name in names if manifests or "layer-sensitivity" not in name]
    return [name for name in kept if mine.get(name) != theirs.get(name)]


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


class Stopper:
    """A sink that cancels as soon as a stage begins."""

    def __init__(self, stage: str) -> None:
        self.cancel = CancelToken()
        self.stage = stage
        self.seen: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.seen.append(event.stage)
            if event.stage == self.stage:
                self.cancel.cancel()


@pytest.mark.parametrize("stage", ["import", "calibrate", "pack", "write"])
def test_cancelled_at_any_stage_leaves_nothing(bench: Bench, stage: str, tmp_path: Path) -> None:
    stopper = Stopper(stage)
    planned = plan(bench, bench.stub("fp8", 50), "modelopt", tmp_path / "out")
    with pytest.raises(Cancelled):
        api.execute(planned, sink=stopper, cancel=stopper.cancel)
    assert stopper.seen[-1] == stage
    assert list((tmp_path / "out").iterdir()) == []


class Killer:
    """A sink that kills a child of this process when a stage begins."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started) and event.stage == "calibrate":
            for pid in _exporters():
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)


def _exporters() -> list[int]:
    """Processes that export and whose parent is this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            status = (entry / "status").read_text()
        except OSError:
            continue
        if b"ckptdiff.runtime.export" in command and f"\nPPid:\t{os.getpid()}\n" in status:
            found.append(int(entry.name))
    return found


def test_a_killed_child_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    killer = Killer()
    planned = plan(bench, bench.stub("fp8", 50), "modelopt", tmp_path / "out")
    report = api.execute(planned, sink=killer)
    (outcome,) = report.outcomes
    assert killer.killed
    assert outcome.status == "failed" and "SIGKILL" in str(outcome.reason)
    assert api.exit_code(report) == 4
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_parent_takes_its_child_along(bench: Bench, tmp_path: Path) -> None:
    scheme, out = bench.stub("fp8", 50), tmp_path / "out"
    parent = subprocess.Popen(
        [*COMMAND, "reexport", scheme, "--engine", "modelopt", "--base", bench.base, "--out", out,
         "--yes", "--progress", "json"],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stderr is not None
    child = None
    for line in parent.stderr:
        event = json.loads(line)
        if event["event"] == "started" and event["stage"] == "calibrate":
            (child,) = _children(parent.pid)
            parent.kill()
            break
    parent.wait()
    assert child is not None
    watcher = Thread(target=_gone, args=(child,))
    watcher.start()
    watcher.join(30)
    assert not watcher.is_alive()
    assert not (out / scheme.name).exists()
    # What is left is what the next run removes before it begins.
    with reserved(out / scheme.name) as place:
        (cleaned,) = place.recover()
    assert cleaned.startswith("removed ")
    assert list(out.iterdir()) == []


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in listed]


def _gone(pid: int) -> None:
    """Return once a process has ended."""
    while True:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except OSError:
            return


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
    log = Path(str(outcome.next_step).rpartition(" is in ")[2].removesuffix("."))
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


def test_auto_takes_what_is_proven(bench: Bench, tmp_path: Path) -> None:
    donor = bench.export("fp8", 100)
    by = plan(bench, bench.stub("fp8", 50), "auto", tmp_path, donors=[donor]).report.plans[0]
    assert by.engine == "compose" and by.possible
    alone = plan(bench, bench.stub("fp8", 50), "auto", tmp_path).report.plans[0]
    assert alone.engine == "modelopt" and "no donor has" in alone.why
    awq = bench.export("int4_awq", 100)
    weak = plan(bench, bench.stub("int4_awq", 50), "auto", tmp_path, donors=[awq]).report.plans[0]
    assert weak.engine == "modelopt" and "could not be proven" in weak.why


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


def test_a_sweep_that_was_stopped_goes_on_from_what_is_finished(
    bench: Bench, tmp_path: Path
) -> None:
    """Stopped while the donor is made, then while schemes are composed; other options than
    those of the first run use nothing of it."""
    options = replace(bench.options, calib_samples=3)

    def planned(bits: float = 12) -> api.PlannedBaseline:
        return api.plan_baseline(
            bench.base, top=(10, 100), bits=bits, out=tmp_path, options=options
        )

    def stages(until: tuple[str, int] | None = None) -> list[str]:
        """The stages of a run that is stopped when it begins one of them for the nth time."""
        cancel, begun = CancelToken(), []

        def hear(event: Event) -> None:
            if isinstance(event, Started):
                begun.append(event.stage)
                if until and begun.count(until[0]) == until[1]:
                    cancel.cancel()

        plan = planned()
        if until is None:
            reports.append(api.execute_baseline(plan, cache=False, sink=hear, cancel=cancel))
        else:
            with pytest.raises(Cancelled) as caught:
                api.execute_baseline(plan, cache=False, sink=hear, cancel=cancel)
            assert "was written" in caught.value.message
            assert "it goes on from what is finished" in caught.value.next_step
        return begun

    def untouched(folder: Path) -> tuple[int, int]:
        return folder.stat().st_ino, folder.stat().st_ctime_ns

    reports: list[PlanReport] = []
    name = "fp8_autoquant_all_layers_fp8_rows"
    assert "score" in stages(until=("import", 2))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    search = untouched(tmp_path / name)
    second = stages(until=("write", 3))  # the donor's, and of the second scheme
    assert "score" not in second and second.count("import") == 1
    donor = tmp_path / f".{name}_donor"
    top10 = tmp_path / name.replace("fp8_rows", "top10_rows")
    assert sorted(tmp_path.iterdir()) == [donor, tmp_path / name, top10]
    first = untouched(top10)

    with pytest.raises(UsageError, match="is there already, made from other inputs"):
        planned(bits=13)

    third = stages()
    assert "import" not in third
    (report,) = reports
    assert [outcome.status for outcome in report.outcomes] == ["written"] * 3
    assert [NOTE in outcome.notes for outcome in report.outcomes] == [True, True, False]
    assert untouched(tmp_path / name) == search and untouched(top10) == first
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [name, name.replace("fp8_rows", "top100_rows"), top10.name]
    found = ckptdiff.check(tmp_path, base=bench.base, deep=True)
    assert [f for f in found.findings if f.severity != "info"] == []
    with pytest.raises(UsageError, match="is there already"):
        planned()
