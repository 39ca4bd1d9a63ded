"""Work off the event loop: tasks in threads, their events as messages, batched and cancelable.

Keys never wait for work: a task gets a sink and a cancel token, and whatever comes of it is
posted to the app as a message. Which tasks there are is not known here.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from textual.message import Message

from ckptdiff.errors import Cancelled, CkptdiffError
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Sink, Started
from ckptdiff.tui.state import Progress

INTERVAL = 0.25  # seconds between two messages of a job's progress

Task = Callable[[Sink, CancelToken], object]


class Progressed(Message):
    """A job got on."""

    def __init__(self, job: str, progress: Progress) -> None:
        super().__init__()
        self.job = job
        self.progress = progress


class Done(Message):
    """A job is over and has a result."""

    def __init__(self, job: str, result: object) -> None:
        super().__init__()
        self.job = job
        self.result = result


class Partly(Message):
    """A job that goes on has this much of its result by now."""

    def __init__(self, job: str, result: object) -> None:
        super().__init__()
        self.job = job
        self.result = result


class Failed(Message):
    """A job is over without a result; `reason` is for people. Empty: it was cancelled."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__()
        self.job = job
        self.reason = reason


class Logged(Message):
    """A job said something, line by line."""

    def __init__(self, job: str, lines: tuple[str, ...]) -> None:
        super().__init__()
        self.job = job
        self.lines = lines


class Batch:
    """A sink that adds up events and posts what they come to, each `INTERVAL` at most.

    The start and the end of a stage are posted at once, so that the last word is never lost.
    Stages may run side by side, each of them with its own progress.
    """

    def __init__(
        self,
        job: str,
        post: Callable[[Message], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job, self._post, self._clock = job, post, clock
        self._progress = Progress(job, "")
        self._stages: dict[str, tuple[Progress, float]] = {}  # and when each of them began
        self._said = clock()

    def __call__(self, event: Event) -> None:
        now = self._clock()
        match event:
            case Started(stage, total, unit):
                self._progress = Progress(self._job, stage, 0, total, unit)
                self._stages[stage] = self._progress, now
            case Advanced(stage, amount, _):
                old, begun = self._stages.get(stage, (Progress(self._job, stage), now))
                self._progress = old._replace(done=old.done + amount, seconds=now - begun)
                self._stages[stage] = self._progress, begun
                if now - self._said < INTERVAL:
                    return
            case Finished(stage):
                self._progress, _ = self._stages.pop(stage, (self._progress, now))
        self._said = now
        self._post(Progressed(self._job, self._progress))


class Paced:
    """Tells the newest of many partial results, one each `INTERVAL` at most: at once where it
    may, else with one of the events that go by. The last of them is the job's own result."""

    def __init__(
        self,
        tell: Callable[[object], None],
        sink: Sink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._sink, self._clock = tell, sink, clock
        self._newest: object = None
        self._said = clock() - INTERVAL
        self._lock = threading.Lock()

    def __call__(self, result: object) -> None:
        """There is more of a result. Any thread may say so."""
        with self._lock:
            self._newest = result
        self._flush()

    def sink(self, event: Event) -> None:
        """A sink for the job, in front of the one it was given."""
        self._sink(event)
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            now, newest = self._clock(), self._newest
            if newest is None or now - self._said < INTERVAL:
                return
            self._newest, self._said = None, now
        self._tell(newest)


class _Pauses:
    """No garbage collection while a job runs, and none of what a job leaves behind.

    A full collection over the records of 900,000 tensors holds every thread for seconds, keys
    included. Records have no cycles, so that counting references frees them all the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs = 0

    def __enter__(self) -> None:
        with self._lock:
            self._jobs += 1
            gc.disable()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._jobs -= 1
            if not self._jobs:
                gc.freeze()
                gc.enable()


_PAUSES = _Pauses()


@dataclass(slots=True)
class Bridge:
    """Runs tasks by name. A new task under a name cancels the one before, whose messages do
    not arrive any more.

    `post` is called in threads and must be safe to.
    """

    post: Callable[[Message], object]
    _tokens: dict[str, CancelToken] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def start(self, job: str, task: Task, *, writes: bool = False) -> None:
        """Run `task` in a thread; `Done` or `Failed` follows, unless it is replaced before.
        One that `writes` is waited for when the app is left: it cleans up behind itself."""
        token = CancelToken()
        with self._lock:
            if self._closed:
                return
            if job in self._tokens:
                self._tokens[job].cancel()
            self._tokens[job] = token
        # Daemons: leaving the app waits for nobody who only reads.
        threading.Thread(
            target=self._work,
            args=(job, task, token, nullcontext() if writes else _PAUSES),  # which takes hours
            name=f"ckptdiff-{job}",
            daemon=not writes,
        ).start()

    def stop(self, job: str) -> None:
        """Ask a job to stop. It goes on being heard, and says when it has."""
        with self._lock:
            if job in self._tokens:
                self._tokens[job].cancel()

    def close(self) -> None:
        """Cancel all jobs for good: what ends has nobody who could be told."""
        self._closed = True
        self.cancel()

    def cancel(self, *jobs: str) -> None:
        """Cancel these jobs, or all of them. Nothing is heard of them any more."""
        with self._lock:
            for job in jobs or tuple(self._tokens):
                if job in self._tokens:
                    self._tokens.pop(job).cancel()

    def tell(self, job: str, token: CancelToken, result: object) -> None:
        """Post what there is of a result by now; `token` is the one that the task was given, so
        that nothing is heard of a task that was replaced."""
        if self._tokens.get(job) is token:
            self.post(Partly(job, result))

    def log(self, job: str, lines: tuple[str, ...]) -> None:
        """Post what a job says."""
        self.post(Logged(job, lines))

    def runs(self, job: str) -> bool:
        """Whether a job was started and is not over."""
        return job in self._tokens

    @property
    def busy(self) -> bool:
        """Whether any job is not over."""
        return bool(self._tokens)

    def _work(
        self, job: str, task: Task, token: CancelToken, meanwhile: AbstractContextManager[None]
    ) -> None:
        def say(message: Message) -> None:
            if self._tokens.get(job) is token:
                self.post(message)

        end: Message
        try:
            with meanwhile:
                end = Done(job, task(Batch(job, say), token))
        except Cancelled:
            end = Failed(job, "")
        except CkptdiffError as error:
            end = Failed(job, str(error))
        except Exception as error:
            # A defect of ours must not take the app, with all that it shows, down with it.
            end = Failed(job, f"this is a defect of ckptdiff: {type(error).__name__}: {error}")
        with self._lock:
            current = self._tokens.get(job) is token
            if current:
                del self._tokens[job]
        if current:
            self.post(end)
