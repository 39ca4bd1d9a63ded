"""Opens local files so that nothing in a checkpoint directory can hang or harm the reader.

A directory that somebody else filled may hold a fifo, a device or a socket under the name
of a shard. Whatever reads checkpoint bytes opens them through `open_regular`, which looks
at what was opened before a byte is read. What the bytes mean must not move in here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckptdiff.records.checkpoint import FileIdentity
from ckptdiff.sources.trace import note, note_entry

DOCUMENT_LIMIT = 64 * 1024 * 1024
"""Bytes of the largest JSON document that `read_document` reads."""

CHANGED = "changed while it was read"
"""The reason for a file that is not what it was when it was opened, or its header read."""

# O_NONBLOCK: opening a fifo that nobody writes to would otherwise wait for ever.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

_REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ELOOP: "symlink loop",
    errno.ENOENT: "vanished, or a link to nothing",
    errno.ENOTDIR: "a part of its path is not a directory",
    errno.ENAMETOOLONG: "the file name is too long",
    errno.EIO: "input/output error",
    errno.ESTALE: "stale network file handle",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.ETIMEDOUT: "timed out",
}

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Unreadable(Exception):
    """A file could not be looked at; `reason` says why in plain words, without the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotRegular(Unreadable):
    """The path leads to a directory, fifo, socket or device; `reason` names which."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that is open for reading. `identity` was taken when it was opened."""

    fd: int
    identity: FileIdentity


@contextmanager
def open_regular(path: str | Path) -> Iterator[OpenFile]:
    """Open a regular file for reading, following links, and close it afterwards.

    Raises `NotRegular` for anything that is not a regular file and `Unreadable` when it
    cannot be opened. Never waits for another process. An `OSError` from the body of the
    `with` block passes through unchanged.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        note_entry(path)
        # Sockets, and devices without a driver, refuse to be opened at all.
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise NotRegular("a socket or a device") from error
        raise Unreadable(reason_of(error)) from error
    except ValueError as error:  # a NUL byte or a character that no file name can hold
        raise Unreadable("not a possible file name") from error
    try:
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise Unreadable(reason_of(error)) from error
        note(path, status)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
            raise NotRegular(kind)
        yield OpenFile(fd, identity_of(status))
    finally:
        os.close(fd)


def identity(fd: int) -> FileIdentity:
    """What the open file `fd` is now: compare with an earlier one to notice a change.

    Raises `Unreadable` when the file system does not answer.
    """
    try:
        return identity_of(os.fstat(fd))
    except OSError as error:
        raise Unreadable(reason_of(error)) from error


def read_range(fd: int, offset: int, length: int) -> bytes:
    """Read `length` bytes at byte `offset` of the open file `fd`.

    Fewer bytes come back only where the file ends. Raises `Unreadable` on an IO error.
    """
    parts: list[bytes] = []
    try:
        while length > 0:
            part = os.pread(fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
    except OSError as error:
        raise Unreadable(reason_of(error)) from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_document(path: str | Path, limit: int = DOCUMENT_LIMIT) -> bytes:
    """Read a whole small file, such as a JSON document, of at most `limit` bytes.

    Raises `Unreadable` when it is larger, cannot be read, or changes while it is read,
    and `NotRegular` when it is not a regular file.
    """
    with open_regular(path) as file:
        if file.identity.size > limit:
            raise Unreadable(f"larger than {limit:,} bytes")
        # One byte more than stated shows a file that grew since it was opened.
        content = read_range(file.fd, 0, file.identity.size + 1)
        if len(content) != file.identity.size or identity(file.fd) != file.identity:
            raise Unreadable(CHANGED)
    return content


def identity_of(status: os.stat_result) -> FileIdentity:
    """The part of an `os.fstat` result that tells whether a file is still the same."""
    return FileIdentity(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def reason_of(error: OSError) -> str:
    """Why the operating system refused, in plain words and without the path."""
    known = _REASONS.get(error.errno or 0)
    return known or (error.strerror or "unknown error").lower()
