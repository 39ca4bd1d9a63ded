"""Processes for arithmetic on many processors, where threads wait for the interpreter's lock.

On 16 processors, recomputing FP8 weights takes 16 processes 0.4 of the time of the best number
of threads, NVFP4 0.24; on 2 it takes the same. One process, `python -P -m
ckptdiff.jobs.workers`, imports what is needed and forks the others. They are in a session of
their own and do not see Ctrl-C; each ends when its pipe does, with us, whatever ends us. Both
ends are this file, so that pickles are safe to load. What is done must not move in.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import Any, Generic, Protocol, Self, TypeVar

from ckptdiff.errors import ChildError
from ckptdiff.jobs.children import python_path

Task = TypeVar("Task")
Result = TypeVar("Result")

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 2.0  # a worker sees that its pipe is closed when it has something to say
_TOLD_BYTES = 1 << 24  # read between two messages


class Observer(Protocol):
    """What a task is watched by, here and in a worker."""

    def check(self) -> None: ...
    def advance(self, nbytes: int) -> None: ...


Work = Callable[[Task, Observer], Result]


class Workers(Generic[Task, Result]):
    """`count` processes, for as many threads that call `run` after `prepare`. Use it in a `with`
    block, which ends them whatever happens.

    Whoever begins early loses no time: `module` is imported meanwhile. What is prepared, tasks
    and results are pickled.
    """

    def __init__(self, count: int, module: str) -> None:
        pairs = [Pipe() for _ in range(count)]
        self._pipes = [ours for ours, _ in pairs]
        theirs = [pipe.fileno() for _, pipe in pairs]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ckptdiff.jobs.workers", module, *map(str, theirs)],
                # A process that forks had better have no threads.
                env={**os.environ, "PYTHONPATH": python_path(), "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=theirs,
                start_new_session=True,
            )
        except BaseException:
            self.dismiss()
            raise
        finally:
            for _, pipe in pairs:
                pipe.close()
        self._idle: SimpleQueue[Connection] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        if not self._idle.empty():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def prepare(self, prepare: Callable[[], Work[Task, Result]]) -> None:
        """Say, once, what gives the function that does the tasks. It is called before the
        processes part."""
        with suppress(ConnectionError):  # then `run` says so
            self._pipes[0].send(prepare)
        for pipe in self._pipes:
            self._idle.put(pipe)

    def run(self, task: Task, watch: Observer) -> Result:
        """The result of one task. Raises what `watch` raises, and `ChildError` when the task
        failed or its process ended."""
        pipe = self._idle.get()
        try:
            pipe.send(task)
            while True:
                while not pipe.poll(_POLL_SECONDS):
                    watch.check()
                kind, content = pipe.recv()
                if kind == "done":
                    return content  # type: ignore[no-any-return]
                if kind == "failed":
                    raise ChildError("recomputing weights failed", content)
                watch.check()
                watch.advance(content)
        except (EOFError, ConnectionError):
            raise ChildError(
                "a process that recomputes weights ended early, perhaps for lack of memory",
                "Run it again with --jobs 1, which starts none.",
            ) from None
        finally:
            self._idle.put(pipe)

    def dismiss(self) -> None:
        """There are no more tasks: have the processes end, without waiting for them."""
        for pipe in self._pipes:
            pipe.close()


class _Told:
    """The watch of a worker: what it has read goes to the other end, now and then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._read = pipe, 0

    def check(self) -> None:
        """Nothing: when a task is not wanted any more, its pipe is closed."""

    def advance(self, nbytes: int) -> None:
        self._read += nbytes
        if self._read >= _TOLD_BYTES:
            self.tell()

    def tell(self) -> None:
        self._pipe.send(("read", self._read))
        self._read = 0


def _serve(work: Work[Any, Any], pipe: Connection) -> None:
    """Do tasks until nobody wants more."""
    while True:
        told = _Told(pipe)
        task = pipe.recv()
        try:
            result = work(task, told)
        except ConnectionError:
            raise
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
        else:
            told.tell()
            pipe.send(("done", result))


def _main(module: str, pipes: Sequence[Connection]) -> None:
    importlib.import_module(module)
    work = pipes[0].recv()()
    for mine in pipes:
        if not os.fork():
            for pipe in pipes:
                if pipe is not mine:
                    pipe.close()
            _serve(work, mine)
    for pipe in pipes:
        pipe.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    with suppress(EOFError, ConnectionError):  # the other end is closed
        _main(sys.argv[1], [Connection(int(fd)) for fd in sys.argv[2:]])
