"""A directory that comes into being whole: built beside its place under a hidden name, then
renamed; and one that takes the place of another, which is set aside and never lost.

Every state that a kill can leave is told apart by the next run, which holds the same lock:
a hidden sibling that no journal names is an unfinished build and is removed; a journal is
written once a build is complete, and is finished. What is built does not matter here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ckptdiff.errors import UsageError
from ckptdiff.sources.local import Unreadable, read_document, reason_of

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
# A journal is four short entries; nothing longer was written here.
_JOURNAL_BYTES = 1 << 16


class Place:
    """The directory `target`, which is or will be a checkpoint, under a lock that keeps other
    runs away. Use it in a `with` block of `reserved`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        prefix, name = re.escape(f".{target.name}.ckptdiff-"), re.escape(target.name)
        self._build = re.compile(prefix + r"[a-z0-9_]{8}")
        self._aside = re.compile(name + r"\.broken-[1-9][0-9]*")
        self.lock = target.with_name(f".{target.name}.ckptdiff.lock")
        self._journal = target.with_name(f".{target.name}.ckptdiff.journal")

    @property
    def interrupted(self) -> bool:
        """Whether a replacement was begun and not ended."""
        return os.path.lexists(self._journal)

    def recover(self) -> tuple[str, ...]:
        """Finish or remove what a run that was killed left; says what that was."""
        done = []
        self._draft().unlink(missing_ok=True)
        if self.interrupted:
            done.append(self._finish())
        for left in sorted(self._siblings()):
            shutil.rmtree(left)
            done.append(f"removed {left.name}, which a run that was killed had left unfinished")
        for lock in self.target.parent.glob(".*.ckptdiff.lock"):
            with suppress(OSError):  # another's: what cannot be opened is left to its owner
                if lock != self.lock and (fd := _locked(lock)) is not None:
                    _release(lock, fd)  # nobody holds it: its process was killed
        return tuple(done)

    def _discard(self, folder: Path) -> None:
        """Remove a build that did not get its name; not once a journal tells of it."""
        if not self.interrupted:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def build(self) -> Iterator[Path]:
        """A new hidden directory beside the target. It is removed again when the block fails.

        Its mode is that of the target where there is one, else as the umask says; a group that
        its parent hands down stays.
        """
        prefix = f".{self.target.name}.ckptdiff-"
        with ExitStack() as stack:
            with uninterrupted():
                folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.target.parent))
                stack.callback(self._discard, folder)
            folder.chmod(folder.stat().st_mode & stat.S_ISGID | self._mode())
            yield folder

    def _mode(self) -> int:
        """Permissions of the new directory: who could not look into the old one still cannot."""
        with suppress(FileNotFoundError):
            return stat.S_IMODE(self.target.stat().st_mode) | stat.S_IRWXU
        return 0o777 & ~umask()

    def publish(self, folder: Path) -> None:
        """Give a complete directory its name. Raises `UsageError` when that is taken."""
        try:
            _rename(folder, self.target, _NOREPLACE)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise UsageError(
                f"{self.target} came into being while this ran",
                "Nothing was changed; name another target by --out.",
            ) from error
        sync_directory(self.target.parent)

    def remove(self) -> None:
        """Remove the target, under a name first that the next run clears away: no part of it
        is ever taken for the whole."""
        prefix = f".{self.target.name}.ckptdiff-"
        left = Path(tempfile.mkdtemp(prefix=prefix, dir=self.target.parent))
        self.target.rename(left)
        shutil.rmtree(left)

    def replace(self, folder: Path) -> Path:
        """Put a complete directory in the place of the target; gives where that went."""
        aside = self._free_name()
        journal = {
            "new": _node(folder),
            "old": _node(self.target),
            "build": folder.name,
            "aside": aside.name,
        }
        with self._draft().open("w") as file:
            json.dump(journal, file)
            file.flush()
            os.fsync(file.fileno())
        self._draft().replace(self._journal)
        sync_directory(self.target.parent)
        self._finish()
        return aside

    def _finish(self) -> str:
        """Carry out the journal from whatever state it is found in."""
        build, aside, new, old = self._read_journal()
        here = _node(self.target)
        if here == old and _node(build) == new:
            try:
                _rename(build, self.target, _EXCHANGE)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                # In two steps, between which the target is not there: the journal knows.
                _rename(self.target, aside, _NOREPLACE)
                build.rename(self.target)
        elif here is None and _node(build) == new:
            build.rename(self.target)
        elif here != new:
            raise UsageError(
                f"{self.target} is neither what was to be replaced nor what replaces it",
                f"Look at {build.name} and {aside.name} beside it, then remove {self._journal}.",
            )
        if _node(build) == old:
            _rename(build, aside, _NOREPLACE)
        sync_directory(self.target.parent)
        self._journal.unlink()
        sync_directory(self.target.parent)
        return f"finished a repair that was killed: the original is {aside.name}"

    def _read_journal(self) -> tuple[Path, Path, object, object]:
        """What the journal names: build and aside, and what was new and old. Names that are
        not given here are not followed, whoever wrote them. Raises `UsageError`."""
        try:
            journal = json.loads(read_document(self._journal, _JOURNAL_BYTES))
            build, aside = journal["build"], journal["aside"]
            if not (self._build.fullmatch(build) and self._aside.fullmatch(aside)):
                raise ValueError("it names other directories than a repair makes")
            new, old = journal["new"], journal["old"]
            if new is None or old is None:
                raise ValueError("it does not tell what is replaced")
        except (Unreadable, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"{self._journal} cannot be understood: {error}",
                "It belongs to a repair that was killed: look at the directories beside it, "
                "then remove it.",
            ) from error
        return self.target.with_name(build), self.target.with_name(aside), new, old

    def _draft(self) -> Path:
        """The journal before it is whole."""
        return self._journal.with_name(f"{self._journal.name}.tmp")

    def _free_name(self) -> Path:
        number = 1
        while _node(self.target.with_name(f"{self.target.name}.broken-{number}")) is not None:
            number += 1
        return self.target.with_name(f"{self.target.name}.broken-{number}")

    def _siblings(self) -> Iterator[Path]:
        for entry in self.target.parent.iterdir():
            if self._build.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                yield entry


def finish_interrupted(target: Path) -> tuple[str, ...]:
    """Finish a replacement of `target` that a kill interrupted, when there is one; says so.

    Where two directories cannot be exchanged in one step, a kill between two steps leaves
    nothing under the name of the target.
    """
    if os.path.lexists(target) or not Place(target).interrupted:
        return ()
    with reserved(target) as place:
        return place.recover()


@contextmanager
def reserved(target: Path) -> Iterator[Place]:
    """`target` for this process alone. Raises `UsageError` when another has it."""
    place = Place(target)
    with ExitStack() as stack:
        with uninterrupted():
            try:
                fd = _locked(place.lock)
            except OSError as error:
                if not os.path.lexists(place.lock):
                    raise  # the directory is what cannot be written to
                raise UsageError(
                    f"{place.lock} cannot be opened: {reason_of(error)}",
                    "It is the lock of a run that was killed, or of another user's: remove it "
                    "when no such run is under way.",
                ) from error
            if fd is None:
                raise UsageError(
                    f"another process is writing {target}",
                    "Wait for it to end, then run this again.",
                )
            stack.callback(_release, place.lock, fd)
        yield place


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C for the end of the block: what belongs together is done together."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def _release(lock: Path, fd: int) -> None:
    with uninterrupted():
        with suppress(OSError):
            lock.unlink()
        os.close(fd)


def _locked(path: Path) -> int | None:
    """The lock file, opened and locked; None when somebody else has it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        # Whoever had it may have removed it between our open and our lock.
        if _node(path) == [(status := os.fstat(fd)).st_dev, status.st_ino]:
            return fd
        os.close(fd)


def umask() -> int:
    """The umask of this process, which the system tells only whoever sets another one."""
    found = os.umask(0)
    os.umask(found)
    return found


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _node(path: Path) -> list[int] | None:
    """What tells a directory from others, whatever its name; None when it is not there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]


def _rename(source: Path, target: Path, flags: int) -> None:
    """renameat2. Without it, `_NOREPLACE` looks first and `_EXCHANGE` raises ENOSYS."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        paths = (os.fsencode(source), os.fsencode(target))
        if not function(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(flags)):
            return
        number = ctypes.get_errno()
        if number not in _CANNOT:
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    if flags == _EXCHANGE:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _node(target) is not None:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)
