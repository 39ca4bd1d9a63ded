"""Work off the event loop: tasks in threads, their events as messages, batched and cancelable.

Keys never wait for work: a task gets a sink and a cancel token, and whatever comes of it is
posted to the app as a message. Which tasks there are is not known here.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
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


class Failed(Message):
    """A job is over without a result; `reason` is for people. Empty: it was cancelled."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__()
        self.job = job
        self.reason = reason


class Batch:
    """A sink that adds up events and posts what they come to, each `INTERVAL` at most.

    The start and the end of a stage are posted at once, so that the last word is never lost.
    """

    def __init__(
        self,
        job: str,
        post: Callable[[Message], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job, self._post, self._clock = job, post, clock
        self._progress = Progress(job, "")
        self._begun = self._said = clock()

    def __call__(self, event: Event) -> None:
        now = self._clock()
        match event:
            case Started(stage, total, unit):
                self._progress = Progress(self._job, stage, 0, total, unit)
                self._begun = now
            case Advanced(stage, amount, _):
                old = self._progress
                self._progress = Progress(
                    self._job, stage, old.done + amount, old.total, old.unit, now - self._begun
                )
                if now - self._said < INTERVAL:
                    return
            case Finished():
                pass
        self._said = now
        self._post(Progressed(self._job, self._progress))


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

    def start(self, job: str, task: Task) -> None:
        """Run `task` in a thread; `Done` or `Failed` follows, unless it is replaced before."""
        token = CancelToken()
        with self._lock:
            if job in self._tokens:
                self._tokens[job].cancel()
            self._tokens[job] = token
        # Daemons: leaving the app waits for nobody, and nothing is changed by being left.
        threading.Thread(
            target=self._work, args=(job, task, token), name=f"ckptdiff-{job}", daemon=True
        ).start()

    def cancel(self, *jobs: str) -> None:
        """Cancel these jobs, or all of them. Nothing is heard of them any more."""
        with self._lock:
            for job in jobs or tuple(self._tokens):
                if job in self._tokens:
                    self._tokens.pop(job).cancel()

    def runs(self, job: str) -> bool:
        """Whether a job was started and is not over."""
        return job in self._tokens

    @property
    def busy(self) -> bool:
        """Whether any job is not over."""
        return bool(self._tokens)

    def _work(self, job: str, task: Task, token: CancelToken) -> None:
        def say(message: Message) -> None:
            if self._tokens.get(job) is token:
                self.post(message)

        end: Message
        try:
            with _PAUSES:
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
