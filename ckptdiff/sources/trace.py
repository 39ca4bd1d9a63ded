"""Notes what was looked at, so that a result can be trusted while nothing of it has changed.

Every file that is opened and every directory that is listed below here is noted with its
identity, and what was not there with the reason. A result that depends on files alone holds
for as long as every note does. Only the thread that traces is listened to: threads that hash
open files that were noted when their headers were read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

# (device, inode, size, mtime_ns, ctime_ns) of what a path leads to, or (errno,).
Seen = tuple[int, ...]
StrPath = str | os.PathLike[str]

_SETTLED_NS = 2_000_000_000


@dataclass(slots=True)
class Trace:
    """What was seen under each path. `torn`: something changed between two looks at it."""

    seen: dict[str, Seen] = field(default_factory=dict)
    torn: bool = False


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


@contextmanager
def tracing() -> Iterator[Trace]:
    """Note everything that is looked at inside the block."""
    trace = Trace()
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def note(path: StrPath, status: os.stat_result) -> None:
    """Say that `path` was looked at, and what it was then. Costs nothing outside of a trace."""
    if trace := _current.get():
        _add(trace, path, _seen(status))


def note_entry(path: StrPath) -> None:
    """As `note`, for what could not be opened, or whose identity nobody has asked for yet."""
    if trace := _current.get():
        _add(trace, path, _look(path))


def still_holds(seen: Mapping[str, Seen]) -> bool:
    """Whether every path is what it was."""
    return all(_look(path) == before for path, before in seen.items())


def is_settled(seen: Mapping[str, Seen], since_ns: int) -> bool:
    """Whether nothing had been written to within two seconds before `since_ns`.

    Clocks of file systems are coarse: the next write could leave the same times.
    """
    times = (max(identity[3:]) for identity in seen.values() if len(identity) > 1)
    return all(since_ns - time > _SETTLED_NS for time in times)


def _add(trace: Trace, path: StrPath, seen: Seen) -> None:
    if trace.seen.setdefault(os.fspath(path), seen) != seen:
        trace.torn = True


def _look(path: StrPath) -> Seen:
    try:
        return _seen(os.stat(path))  # noqa: PTH116  a Path would cost as much again
    except OSError as error:
        return (error.errno or 0,)
    except ValueError:  # a NUL byte
        return (0,)


def _seen(status: os.stat_result) -> Seen:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
