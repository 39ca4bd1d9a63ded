"""The log of a child, read while it is written: new lines, as they come.

Which child writes it, and who shows the lines, is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.25
# As much of a log as is read at once: a child that prints faster than that is not all shown.
_PART_BYTES = 1 << 16


class Tail:
    """The lines of a file from where the last ones ended. A file that is begun anew is read
    from its start; of a line that was written over by carriage returns the last text stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""

    def read(self, *, last: bool = False) -> tuple[str, ...]:
        """What was added since; the end of a line is waited for unless this is the `last`."""
        try:
            size = self._path.stat().st_size
            if size < self._at:
                self._at, self._rest = 0, b""
            with self._path.open("rb") as file:
                if size - self._at > _PART_BYTES:  # the newest says most
                    self._at, self._rest = size - _PART_BYTES, b""
                file.seek(self._at)
                part = file.read(_PART_BYTES)
        except OSError:
            return ()  # not there yet, or not any more
        self._at += len(part)
        *lines, self._rest = (self._rest + part).split(b"\n")
        if last and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return tuple(text for line in lines if (text := _visible(line)))


def _visible(line: bytes) -> str:
    """The text that a terminal would show of a line in the end."""
    return line.decode("utf-8", "replace").rstrip().rpartition("\r")[2]


@contextmanager
def followed(path: Path, say: Callable[[tuple[str, ...]], None]) -> Iterator[None]:
    """Tell the new lines of a file, which need not be there yet, for as long as the block runs."""
    tail, over = Tail(path), threading.Event()

    def follow() -> None:
        while not over.wait(_POLL_SECONDS):
            if lines := tail.read():
                say(lines)

    thread = threading.Thread(target=follow, name="ckptdiff-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        while lines := tail.read(last=True):
            say(lines)
