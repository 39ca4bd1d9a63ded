"""A re-export by ModelOpt that is cancelled or killed leaves nothing, and a sweep goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from command import COMMAND, environment

import ckptdiff
from ckptdiff import api
from ckptdiff.errors import Cancelled, UsageError
from ckptdiff.events import CancelToken, Event, Started
from ckptdiff.jobs.resuming import NOTE
from ckptdiff.jobs.staging import reserved
from ckptdiff.records.plan import PlanReport
from tests.runtime.engine_runs import Bench, plan

pytestmark = pytest.mark.timeout(1500)


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
    child, directory = None, tmp_path
    for line in parent.stderr:
        event = json.loads(line)
        if event["event"] == "started" and event["stage"] == "calibrate":
            (child,) = _children(parent.pid)
            directory = Path(f"/proc/{child}/cwd").readlink()
            assert directory.is_dir()
            parent.kill()
            break
    parent.wait()
    assert child is not None
    watcher = Thread(target=_gone, args=(child,))
    watcher.start()
    watcher.join(30)
    assert not watcher.is_alive()
    assert not directory.exists()
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
