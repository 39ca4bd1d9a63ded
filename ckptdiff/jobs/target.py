"""A file that is written at many places at once: through its descriptor, or mapped.

Threads that write one file wait for each other in the kernel, so that a third gains nothing;
threads that read into a mapping of it do not. On 16 processors, eight of those take 0.5 (ext4)
to 0.6 (memory) of the time of two that write, but one or two of them take longer.

A disk that is full must be an error, not the end of the process, which it is for who writes to
a page that cannot be had. So room is taken first: on a disk for the whole file, which takes no
time there. In memory that takes as long as the writing itself, by one thread; there each thread
asks for its own pages, a step ahead, which takes 0.7 of the time. To let go of a mapping takes
long, too, unless each thread has let go of its part.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckptdiff.quant.arrays import Array

STEP_BYTES = 1 << 20  # the most that is put at once

_MOUNTS = Path("/proc/self/mountinfo")
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python has no name for it
_NO_MAPPING = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Target:
    """A file that is written: its descriptor, and its bytes where it is mapped. `ahead`: room
    for those is not taken yet."""

    fd: int
    mapped: Array | None = None
    ahead: bool = False

    def room(self, offset: int, nbytes: int) -> Array:
        """Where to put at most `STEP_BYTES` that are to be at `offset`, before they are `put`.
        Raises `OSError` when there is no room."""
        if self.mapped is None:
            return _buffer()[:nbytes]
        part = self.mapped[offset : offset + nbytes]
        if self.ahead:
            _populate(part)
        return part

    def put(self, data: memoryview, offset: int) -> None:
        """Write what is in a room, if it is not there already."""
        if self.mapped is None:
            self.write(data, offset)

    def leave(self, offset: int, nbytes: int) -> None:
        """Nothing more is put there soon."""
        if self.mapped is not None:
            with suppress(OSError):
                _advise(self.mapped[offset : offset + nbytes], mmap.MADV_DONTNEED)

    def write(self, data: memoryview, offset: int) -> None:
        """Write bytes that lie elsewhere."""
        while data:
            count = os.pwrite(self.fd, data, offset)
            data, offset = data[count:], offset + count


@contextmanager
def created(path: Path, nbytes: int, *, mapping: bool) -> Iterator[Target]:
    """A new file that will have `nbytes`; with `mapping` mapped, where files can be.

    Raises `OSError`, also on a disk that has no room for it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield (_mapped(fd, nbytes) if mapping else None) or Target(fd)
    finally:
        os.close(fd)


def _mapped(fd: int, nbytes: int) -> Target | None:
    """A target that is `nbytes` long from now on; None where files are not mapped."""
    try:
        if _in_memory(fd):
            os.ftruncate(fd, nbytes)
            array = _map(fd, nbytes)
            _populate(array[:1])  # whether the kernel can
            return Target(fd, array, ahead=True)
    except OSError:
        pass  # then as on a disk, which says why
    if not hasattr(os, "posix_fallocate"):  # macOS
        return None
    try:
        os.posix_fallocate(fd, 0, nbytes)
        return Target(fd, _map(fd, nbytes))
    except OSError as error:
        if error.errno in _NO_MAPPING:
            return None
        raise


def _map(fd: int, nbytes: int) -> Array:
    return np.frombuffer(mmap.mmap(fd, nbytes), np.uint8)


def _in_memory(fd: int) -> bool:
    """Whether a file is on a tmpfs."""
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw (see proc_pid_mountinfo(5))
    mounts = (line.partition(" - ") for line in _MOUNTS.read_text("utf-8", "replace").splitlines())
    return any(
        where.split()[2] == number and what.startswith("tmpfs ") for where, _, what in mounts
    )


def _populate(part: Array) -> None:
    """Have the kernel find the pages of a part of a mapping, as a write to each would.

    Raises `OSError`: ENOSPC where a write would end the process, EINVAL on an old kernel.
    """
    try:
        _advise(part, _MADV_POPULATE_WRITE)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def _advise(part: Array, advice: int) -> None:
    """madvise(2) for the pages that a part of a mapping touches."""
    inside = part.ctypes.data % mmap.PAGESIZE
    start, length = part.ctypes.data - inside, part.nbytes + inside
    # Not mmap.madvise, which keeps the interpreter's lock.
    function = ctypes.CDLL(None, use_errno=True).madvise
    if function(ctypes.c_void_p(start), ctypes.c_size_t(length), advice):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_local = threading.local()


def _buffer() -> Array:
    """One buffer a thread, which stays in the processor's cache."""
    if not hasattr(_local, "buffer"):
        _local.buffer = np.empty(STEP_BYTES, np.uint8)
    buffer: Array = _local.buffer
    return buffer
