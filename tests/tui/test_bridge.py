"""The bridge: events in batches, jobs that are replaced and cancelled, results as messages."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from queue import Queue

import pytest
from textual.message import Message

from ckptdiff.errors import RootError
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.tui.bridge import INTERVAL, Batch, Bridge, Done, Failed, Progressed

SECONDS = 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_events_are_added_up_and_posted_each_interval() -> None:
    posted: list[Message] = []
    clock = Clock()
    batch = Batch("hash", posted.append, clock)
    batch(Started("hash", 1000, "bytes"))
    assert len(posted) == 1
    for n in range(100):
        clock.now = n * INTERVAL / 50
        batch(Advanced("hash", 10))
    batch(Finished("hash"))
    seen = [message.progress for message in posted if isinstance(message, Progressed)]
    # The start, one after an interval has passed, and the end with all of it.
    assert [progress.done for progress in seen] == [0, 510, 1000]
    assert {progress.total for progress in seen} == {1000}
    assert seen[-1].seconds == pytest.approx(99 * INTERVAL / 50)
    batch(Started("cast", None, "files"))
    last = posted[-1]
    assert isinstance(last, Progressed)
    assert (last.progress.stage, last.progress.done, last.progress.total) == ("cast", 0, None)


def test_a_million_events_are_a_handful_of_messages() -> None:
    posted: list[Message] = []
    clock = Clock()
    batch = Batch("hash", posted.append, clock)
    batch(Started("hash", None, "bytes"))
    for n in range(100_000):
        clock.now = n / 100_000  # a second
        batch(Advanced("hash", 1))
    assert len(posted) <= 1 + 1 / INTERVAL


def collect() -> tuple[Bridge, Callable[[], Message], Queue[Message]]:
    queue: Queue[Message] = Queue()
    return Bridge(queue.put), lambda: queue.get(timeout=SECONDS), queue


def test_a_result_and_an_error_arrive_as_messages() -> None:
    bridge, take, _ = collect()
    bridge.start("a", lambda sink, cancel: 42)
    done = take()
    assert isinstance(done, Done)
    assert (done.job, done.result) == ("a", 42)
    assert not bridge.busy

    def fail(sink: Sink, cancel: CancelToken) -> object:
        raise RootError("gone", "Check the path.")

    bridge.start("b", fail)
    failed = take()
    assert isinstance(failed, Failed)
    assert (failed.job, failed.reason) == ("b", "gone\nCheck the path.")


def test_a_defect_is_said_and_does_not_end_the_app() -> None:
    bridge, take, _ = collect()

    def fail(sink: Sink, cancel: CancelToken) -> object:
        raise ZeroDivisionError("x")

    bridge.start("a", fail)
    failed = take()
    assert isinstance(failed, Failed)
    assert failed.reason == "this is a defect of ckptdiff: ZeroDivisionError: x"


def test_a_job_that_is_replaced_is_cancelled_and_heard_no_more() -> None:
    bridge, take, queue = collect()
    began, replaced, ended = threading.Event(), threading.Event(), threading.Event()

    def first(sink: Sink, cancel: CancelToken) -> object:
        began.set()
        assert replaced.wait(SECONDS)
        sink(Started("late", 1, "files"))
        assert cancel.cancelled
        ended.set()
        return "first"

    bridge.start("a", first)
    assert began.wait(SECONDS)
    bridge.start("a", lambda sink, cancel: "second")
    done = take()
    replaced.set()
    assert ended.wait(SECONDS)
    assert isinstance(done, Done)
    assert done.result == "second"
    bridge.start("b", lambda sink, cancel: "third")  # comes after whatever the first one said
    last = take()
    assert isinstance(last, Done)
    assert last.result == "third"
    assert queue.empty()


def test_cancelling_everything_is_silent() -> None:
    bridge, _, queue = collect()
    began, ended = threading.Event(), threading.Event()

    def task(sink: Sink, cancel: CancelToken) -> object:
        began.set()
        while not cancel.cancelled:
            ended.wait(0.001)
        ended.set()
        cancel.raise_if_cancelled()
        return None

    bridge.start("a", task)
    assert began.wait(SECONDS)
    bridge.cancel()
    assert ended.wait(SECONDS)
    assert not bridge.busy
    assert queue.empty()


def test_the_collector_rests_while_a_job_runs() -> None:
    bridge, take, _ = collect()
    bridge.start("a", lambda sink, cancel: gc.isenabled())
    done = take()
    assert isinstance(done, Done)
    assert done.result is False
    assert gc.isenabled()
