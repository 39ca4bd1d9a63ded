"""Tasks on threads: their order, their failures, and that nothing is left running."""

from __future__ import annotations

import threading

import pytest

from ckptdiff.analysis.spreading import Watch, spread
from ckptdiff.errors import Cancelled
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started, silent


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ckptdiff")]


@pytest.mark.parametrize("jobs", [1, 3, None])
def test_results_come_in_the_order_of_the_tasks(jobs: int | None) -> None:
    """Though the first one ends last."""
    others, events = threading.Semaphore(0), []

    def work(task: int, watch: Watch) -> int:
        if task == 0 and jobs != 1:
            others.acquire()
        watch.advance(10)
        others.release()
        return task * task

    def sink(event: Event) -> None:
        events.append(event)

    found = spread(
        range(20), work, stage="s", total=200, jobs=jobs, sink=sink, cancel=CancelToken()
    )
    assert found == [n * n for n in range(20)]
    assert (events[0], events[-1]) == (Started("s", 200, "bytes"), Finished("s"))
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == 200
    assert ours() == []


def test_what_a_task_raises_is_raised_and_the_rest_not_begun() -> None:
    begun = []

    def work(task: int, watch: Watch) -> None:
        begun.append(task)
        if task == 2:
            raise LookupError("two")

    with pytest.raises(LookupError, match="two"):
        spread(range(1000), work, stage="s", total=0, jobs=1, sink=silent, cancel=CancelToken())
    assert begun[:3] == [0, 1, 2] and len(begun) < 1000
    assert ours() == []


def test_the_reason_comes_from_the_task_that_failed() -> None:
    """Not from the one before it, which stops when it sees that."""

    def work(task: int, watch: Watch) -> None:
        if task == 1:
            raise LookupError("one")
        while True:
            watch.check()

    with pytest.raises(LookupError, match="one"):
        spread(range(2), work, stage="s", total=0, jobs=2, sink=silent, cancel=CancelToken())


def test_tasks_that_run_are_told_to_stop() -> None:
    token = CancelToken()

    def work(task: int, watch: Watch) -> None:
        token.cancel()
        while True:  # ends by what the watch raises, or never
            watch.check()

    with pytest.raises(Cancelled):
        spread(range(8), work, stage="s", total=0, jobs=2, sink=silent, cancel=token)
    assert ours() == []


def test_a_sink_that_raises_stops_the_tasks() -> None:
    def work(task: int, watch: Watch) -> None:
        watch.advance(1)
        while True:
            watch.check()

    def sink(event: Event) -> None:
        if isinstance(event, Advanced):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spread(range(8), work, stage="s", total=9, jobs=2, sink=sink, cancel=CancelToken())
    assert ours() == []
