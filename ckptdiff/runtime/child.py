"""The child's end of `ckptdiff.jobs.children`: requests in, events and results out.

What a program does with its request must not move in here.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ckptdiff.errors import CkptdiffError
from ckptdiff.events import Event, Finished, Sink, Started, Unit
from ckptdiff.jobs.children import DIRECTORY_PREFIX

Message = dict[str, Any]


class Channel:
    """Lines of JSON to and from the process that started this one. Any thread may send."""

    def __init__(self, descriptor: int) -> None:
        self._out = os.fdopen(descriptor, "w", encoding="utf-8")
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Message:
        """The next message, in the order in which they were sent."""
        return self._inbox.get()

    def send(self, kind: str, **fields: Any) -> None:
        """One message to the parent."""
        line = json.dumps({"kind": kind, **fields})
        with self._sending:
            self._out.write(f"{line}\n")
            self._out.flush()

    def sink(self, event: Event) -> None:
        """Progress, for the parent's sink."""
        self.send(type(event).__name__.lower(), **event._asdict())

    def _listen(self) -> None:
        # Read without Python's buffer, whose lock would be held when the program ends.
        rest = b""
        while part := os.read(0, 1 << 16):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._inbox.put(json.loads(line))
        # Nobody is left to hear of a result, or to clean up: end, with whatever was started here.
        if Path.cwd().name.startswith(DIRECTORY_PREFIX):
            shutil.rmtree(Path.cwd(), ignore_errors=True)
        os.kill(-os.getpid() if os.getpgrp() == os.getpid() else os.getpid(), signal.SIGKILL)


@contextmanager
def during(sink: Sink, stage: str, total: int | None, unit: Unit) -> Iterator[None]:
    """A stage from here to the end of the block, so that no time passes unnamed."""
    sink(Started(stage, total, unit))
    yield
    sink(Finished(stage))


@contextmanager
def keeping_all() -> Iterator[None]:
    """For imports: what they make stays, and looking for garbage among all that torch and
    ModelOpt make takes a sixth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def serve(program: Callable[[Channel], None]) -> None:
    """Run a program whose events go to the descriptor that the command line names."""
    channel = Channel(int(sys.argv[1]))
    try:
        program(channel)
    except CkptdiffError as error:
        channel.send(
            "error",
            type=type(error).__name__,
            message=error.message,
            next_step=error.next_step,
        )
        raise
    except Exception as error:
        channel.send("error", type="", message=f"{type(error).__name__}: {error}", next_step="")
        raise
    channel.send("done")
