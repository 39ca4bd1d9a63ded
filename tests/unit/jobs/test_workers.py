"""Worker processes: what they give back, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ckptdiff.analysis.spreading import spread
from ckptdiff.errors import Cancelled, ChildError
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started, silent
from ckptdiff.jobs import workers as workers_module
from ckptdiff.jobs.workers import Observer, Workers
from tests.unit.jobs import errands
from tests.unit.jobs.test_children import findable, gone

__all__ = ["findable"]

TASKS = list(range(1, 20))


def prepared(prepare: Any, count: int) -> Workers[int, Any]:
    workers: Workers[int, Any] = Workers(count, errands.__name__)
    workers.prepare(prepare)
    return workers


def run(workers: Workers[int, Any], sink: Any = silent, cancel: CancelToken | None = None) -> Any:
    return spread(
        TASKS,
        workers.run,
        stage="test",
        total=sum(TASKS),
        jobs=3,
        sink=sink,
        cancel=cancel or CancelToken(),
    )


def test_results_come_in_order_from_several_processes_with_what_was_read() -> None:
    events: list[Event] = []
    with prepared(partial(errands.prepare, 7), 3) as workers:
        found = run(workers, events.append)
    assert [product for product, _ in found] == [7 * task for task in TASKS]
    pids = {pid for _, pid in found}
    assert os.getpid() not in pids and len(pids) > 1
    assert events[0] == Started("test", sum(TASKS), "bytes") and events[-1] == Finished("test")
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == sum(TASKS)
    assert all(gone(pid) for pid in pids)


def test_what_fails_in_a_worker_is_told() -> None:
    with prepared(errands.failing, 2) as workers, pytest.raises(ChildError) as caught:
        workers.run(0, _Watch())
    assert "ZeroDivisionError" in caught.value.next_step
    with prepared(errands.failing, 1) as workers:
        assert workers.run(1, _Watch()) == 1


@pytest.mark.parametrize("prepare", [errands.vanishing, errands.unprepared])
def test_a_worker_that_ends_early_is_an_error(prepare: Any) -> None:
    with prepared(prepare, 3) as workers, pytest.raises(ChildError, match="ended early") as caught:
        run(workers)
    assert "--jobs 1" in caught.value.next_step


def test_cancelling_ends_the_workers() -> None:
    cancel, pids = CancelToken(), set[int]()

    class Sees(_Watch):
        def advance(self, nbytes: int) -> None:
            if nbytes > 1 << 32:
                pids.add(nbytes - (1 << 32))
                cancel.cancel()

        def check(self) -> None:
            cancel.raise_if_cancelled()

    with prepared(errands.endless, 2) as workers, pytest.raises(Cancelled):
        workers.run(1, Sees())
    assert pids and all(gone(pid) for pid in pids)


def test_a_parent_that_is_killed_leaves_no_worker() -> None:
    parent = """
from ckptdiff.jobs.workers import Workers
from tests.unit.jobs import errands
class Watch:
    def check(self): pass
    def advance(self, nbytes):
        if nbytes > 1 << 32: print(nbytes - (1 << 32), flush=True)
with Workers(2, errands.__name__) as workers:
    workers.prepare(errands.endless)
    workers.run(1, Watch())
"""
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    pid = int(running.stdout.readline())
    leader = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert gone(pid) and gone(leader)


def test_workers_that_nobody_needs_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(workers_module, "_GRACE_SECONDS")  # whoever waits fails
    with Workers(3, "tests.unit.jobs.errands") as workers:
        pid = workers._process.pid
    assert gone(pid)


def test_workers_that_are_dismissed_end_by_themselves() -> None:
    with prepared(partial(errands.prepare, 2), 2) as workers:
        assert workers.run(4, _Watch())[0] == 8
        workers.dismiss()
        assert workers._process.wait(10) == 0
        workers.dismiss()


class _Watch(Observer):
    def check(self) -> None:
        pass

    def advance(self, nbytes: int) -> None:
        pass
