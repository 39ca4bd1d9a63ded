"""Spreads independent tasks over threads, with progress, and an end as soon as it is wanted.

The calling thread only waits and reports; a thread of its own feeds the executor. Executors and
futures keep locks that a KeyboardInterrupt in the middle of `submit` or `wait` leaves locked
for ever, with every worker waiting for them; and only the main thread gets one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import TypeVar

from ckptdiff.errors import Cancelled
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started

REPORT_SECONDS = 0.05  # between two Advanced events

Task = TypeVar("Task")
Result = TypeVar("Result")


class Watch:
    """What a task has to look at often, and tell of the bytes that it has read."""

    def __init__(self, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._lock = threading.Lock()
        self._read = 0
        self.stopped = False  # not an Event: nothing in it can be interrupted half-way
        self.error: BaseException | None = None  # why, when a task failed

    def check(self) -> None:
        """Raise `Cancelled` when the rest of the work is not wanted any more."""
        if self.stopped or self._cancel.cancelled:
            raise Cancelled()

    def advance(self, nbytes: int) -> None:
        with self._lock:
            self._read += nbytes

    def take_read(self) -> int:
        """Bytes read since the last call."""
        with self._lock:
            nbytes, self._read = self._read, 0
        return nbytes


def spread(
    tasks: Sequence[Task],
    work: Callable[[Task, Watch], Result],
    *,
    stage: str,
    total: int,
    executor: Executor | None = None,
    jobs: int | None,
    sink: Sink,
    cancel: CancelToken,
) -> list[Result]:
    """`work(task, watch)` of every task, in their order, on `jobs` threads of its own or on
    those of `executor` (its tasks share memory with the caller).

    `sink` is called in the calling thread: `Started` with `total` bytes, `Advanced` at most
    20 times a second, `Finished` unless it raises. Raises `Cancelled` as soon as the tasks that
    run look at their watch, lets KeyboardInterrupt through as soon, and whatever a task raises;
    nothing of ours runs then.
    """
    cancel.raise_if_cancelled()
    watch = Watch(cancel)
    outcome: SimpleQueue[list[Result] | BaseException] = SimpleQueue()
    feeder = threading.Thread(
        target=_feed,
        args=(tasks, work, executor, jobs, watch, outcome),
        name=f"ckptdiff-{stage}",
        daemon=True,  # even `start` has such a lock; the interpreter must still end
    )
    sink(Started(stage, total, "bytes"))
    try:
        feeder.start()
        while True:
            try:
                found = outcome.get(timeout=REPORT_SECONDS)
                break
            except Empty:
                if nbytes := watch.take_read():
                    sink(Advanced(stage, nbytes))
    finally:
        watch.stopped = True
        if feeder.is_alive():
            feeder.join()
    if isinstance(found, BaseException):
        raise found
    if nbytes := watch.take_read():
        sink(Advanced(stage, nbytes))
    sink(Finished(stage))
    return found


def _feed(
    tasks: Sequence[Task],
    work: Callable[[Task, Watch], Result],
    executor: Executor | None,
    jobs: int | None,
    watch: Watch,
    outcome: SimpleQueue[list[Result] | BaseException],
) -> None:
    """Have the tasks done and put the outcome; no thread of ours runs after that."""
    try:
        if executor is not None:
            found = _submitted(tasks, work, executor, watch)
        else:
            with ThreadPoolExecutor(jobs or os.cpu_count() or 1, "ckptdiff") as own:
                found = _submitted(tasks, work, own, watch)
    except BaseException as error:
        outcome.put(error)
    else:
        outcome.put(found)


def _submitted(
    tasks: Sequence[Task],
    work: Callable[[Task, Watch], Result],
    executor: Executor,
    watch: Watch,
) -> list[Result]:
    futures: list[Future[Result]] = []
    try:
        for task in tasks:
            watch.check()
            futures.append(executor.submit(_watched, task, work, watch))
        return [future.result() for future in futures]
    except Cancelled as error:
        # Of tasks that stop because one has failed, that one has the reason.
        raise (watch.error or error) from None
    finally:
        # Finds nothing to do unless something was raised: then the tasks that run see the
        # flag, and the others never begin.
        watch.stopped = True
        for future in futures:
            future.cancel()
        wait(futures)


def _watched(task: Task, work: Callable[[Task, Watch], Result], watch: Watch) -> Result:
    watch.check()
    try:
        return work(task, watch)
    except Cancelled:
        raise
    except BaseException as error:
        watch.error = watch.error or error
        watch.stopped = True
        raise
