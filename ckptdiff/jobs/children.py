"""Child processes: how work that needs torch or ModelOpt is started, heard and stopped.

Torch is never imported here. A child is `python -P -m ckptdiff.runtime.…` in a private working
directory, so that no module that lies beside a checkpoint is ever imported, and in a session of
its own, so that stopping it stops whatever it started. It reads JSON lines from its standard
input, the request first, and dies when that is closed: with us, whatever ends us. What it has to
say comes as JSON lines on a pipe of its own; what it prints goes to a log. The other end is
`ckptdiff.runtime.child`. What the messages mean is for each job to know.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Self

import ckptdiff
from ckptdiff import errors
from ckptdiff.errors import CapabilityError, ChildError, CkptdiffError, UsageError
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Sink, Started
from ckptdiff.jobs.staging import uninterrupted

Message = Mapping[str, Any]

DIRECTORY_PREFIX = "ckptdiff-"  # of a child's working directory, which it removes if we cannot

# A child that was asked to stop is given this long before it is made to.
_GRACE_SECONDS = 0.5
_POLL_SECONDS = 0.05
# A child that is busy elsewhere, importing or solving, cannot speak: then we say that it runs.
_PULSE_SECONDS = 0.5
_READ_BYTES = 1 << 16
_LOG_LINES = 8
_EVENTS: Mapping[str, type[Event]] = {"started": Started, "advanced": Advanced,
                                      "finished": Finished}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """A module that runs as a child. `title` names it in messages ("the probe"); `packages`
    are what it imports and `extra` brings."""

    module: str
    title: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def require(program: Program) -> None:
    """Raise `CapabilityError` when a package that the program needs is not installed."""
    missing = [package for package in program.packages if find_spec(package) is None]
    if missing:
        raise CapabilityError(
            f"{program.title} needs {' and '.join(missing)}",
            f"pip install 'ckptdiff[{program.extra}]'",
        )


class Child:
    """A running child. Use it in a `with` block, which ends it whatever happens.

    `log` is the file that takes what the child prints; without it a temporary one does, which
    is kept, and named in the error, only when the child fails.
    """

    def __init__(self, program: Program, *, log: Path | None = None) -> None:
        require(program)
        self._program = program
        self._directory = tempfile.mkdtemp(prefix=DIRECTORY_PREFIX)
        self._log, self._kept = _log_path(log), log is not None
        self._outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._events, theirs = os.pipe()
        try:
            with _opened(self._log) as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", program.module, str(theirs)],
                    cwd=self._directory,
                    env=_environment(program, self._directory),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._events)
            self._clear()
            raise
        finally:
            os.close(theirs)
        # A child reads when it has imported what it needs, and a pipe holds little.
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        with uninterrupted():  # a second Ctrl-C would leave the half of it
            self._stop()
            os.close(self._events)
            self._clear(failed=isinstance(error, ChildError))

    @property
    def pid(self) -> int:
        """The child's process and session id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """One message to the child; any thread may, and none waits. Nothing happens when it has
        ended: then `messages` says why."""
        self._outbox.put(json.dumps(message).encode() + b"\n")

    def messages(self, sink: Sink, cancel: CancelToken) -> Iterator[Message]:
        """What the child says until it is done; its progress goes to `sink`, and twice a second
        of silence that its stage goes on, by nothing.

        Raises `Cancelled` within a second of the request, the error that the child ended
        with, and `ChildError` when it ended without saying why.
        """
        pulse = _Pulse(sink)
        for message in self._lines(cancel):
            if message is None:
                pulse.beat()
                continue
            kind = message["kind"]
            if kind in _EVENTS:
                pulse.pass_on(_EVENTS[kind](**{k: v for k, v in message.items() if k != "kind"}))
            elif kind == "error":
                raise self._error(message)
            elif kind == "done":
                return  # torch takes seconds to take itself down: nobody waits for that
            else:
                yield message
        raise ChildError(
            f"{self._program.title} {_ending(self._process.wait())}", self._last_words()
        )

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        while line := self._outbox.get():
            with suppress(BrokenPipeError):
                pipe.write(line)
                pipe.flush()

    def _lines(self, cancel: CancelToken) -> Iterator[Message | None]:
        """Messages as they come; None whenever there was none for a moment."""
        rest = b""
        ready = select.poll()
        ready.register(self._events, select.POLLIN)
        while True:
            cancel.raise_if_cancelled()
            if not ready.poll(1000 * _POLL_SECONDS):
                yield None
                continue
            part = os.read(self._events, _READ_BYTES)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            yield from map(json.loads, lines)

    def _error(self, message: Message) -> CkptdiffError:
        """The error that the child raised on purpose, or what else ended it."""
        kind = getattr(errors, str(message["type"]), None)
        if isinstance(kind, type) and issubclass(kind, CkptdiffError):
            return kind(message["message"], message["next_step"])
        text = f"{self._program.title} failed: {message['message']}"
        return ChildError(text, self._last_words())

    def _last_words(self) -> str:
        """Where the log is, and how it ends."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)  # a traceback comes after the message
        try:
            text = self._log.read_text("utf-8", "replace").rstrip()
        except OSError:
            text = ""
        # Of a bar that was written over and over, what stood there in the end.
        lines = [line.rpartition("\r")[2] for line in text.split("\n")[-_LOG_LINES:] if line]
        ends = ", which ends:" if lines else "; it is empty."
        return "\n".join([f"Read its output in {self._log}{ends}", *lines])

    def _stop(self) -> None:
        """End the child and all that it started."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        else:
            self._signal(signal.SIGKILL)  # whatever it left behind
        self._process.wait()
        self._outbox.put(b"")
        self._writer.join()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _clear(self, failed: bool = False) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        if not self._kept and not failed:
            self._log.unlink(missing_ok=True)


class _Pulse:
    """Events on their way to a sink, and a sign of life of the innermost stage between them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._stages: list[str] = []
        self._said = time.monotonic()

    def pass_on(self, event: Event) -> None:
        if isinstance(event, Started):
            self._stages.append(event.stage)
        elif isinstance(event, Finished) and event.stage in self._stages:
            self._stages.remove(event.stage)
        self._say(event)

    def beat(self) -> None:
        if self._stages and time.monotonic() - self._said >= _PULSE_SECONDS:
            self._say(Advanced(self._stages[-1], 0))

    def _say(self, event: Event) -> None:
        self._sink(event)
        self._said = time.monotonic()


def _opened(log: Path) -> BinaryIO:
    try:
        return log.open("wb")
    except OSError as error:
        raise UsageError(
            f"the log {log} cannot be written: {error.strerror}", "Name another file."
        ) from error


def _log_path(log: Path | None) -> Path:
    if log is not None:
        return log.resolve()
    handle, name = tempfile.mkstemp(prefix="ckptdiff-", suffix=".log")
    os.close(handle)
    return Path(name)


def python_path() -> str:
    """PYTHONPATH of a child: ours, with nothing relative in it, and where this package is."""
    paths: Sequence[str] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    home = str(Path(ckptdiff.__file__).parents[1])
    return os.pathsep.join([*(str(Path(path).absolute()) for path in paths if path), home])


def _environment(program: Program, directory: str) -> dict[str, str]:
    """Ours, with this package where the child finds it. What transformers copies of a model's
    own code goes to the child's directory, and with it."""
    return {
        **os.environ,
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        "HF_MODULES_CACHE": str(Path(directory, "modules")),
        **program.environment,
    }


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code} and no result"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ": perhaps there was too little memory" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
