"""Digests of one checkpoint, for locks: tensors by xxh3, files by SHA-256 where asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.formats.lock import Lock
from ckptdiff.records.checkpoint import Shard, Unread
from ckptdiff.records.hashes import Difference, FileRow, TensorRow
from ckptdiff.sources.local import CHANGED, Unreadable, identity, open_regular, reason_of

_BUFFER_BYTES = 1 << 20


def sha256_files(
    shards: Sequence[Shard], *, sink: Sink, cancel: CancelToken
) -> tuple[tuple[FileRow, ...], tuple[Unread, ...]]:
    """SHA-256 of whole shard files, and those that could not be read. Raises `Cancelled`."""
    rows, unread = [], []
    sink(Started("sha256", sum(s.identity.size for s in shards if s.identity), "bytes"))
    for shard in shards:
        try:
            rows.append(FileRow(shard.name, _sha256(shard, sink, cancel)))
        except Unreadable as error:
            unread.append(Unread(shard.name, error.reason))
    sink(Finished("sha256"))
    return tuple(rows), tuple(unread)


def _sha256(shard: Shard, sink: Sink, cancel: CancelToken) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with open_regular(shard.path) as file:
        if file.identity != shard.identity:
            raise Unreadable(CHANGED)
        while True:
            cancel.raise_if_cancelled()
            try:
                count = os.readv(file.fd, [buffer])
            except OSError as error:
                raise Unreadable(reason_of(error)) from error
            if not count:
                break
            hasher.update(buffer[:count])
            sink(Advanced("sha256", count, shard.name))
        if identity(file.fd) != file.identity:
            raise Unreadable(CHANGED)
    return hasher.hexdigest()


def compare_with_lock(lock: Lock, rows: Sequence[TensorRow]) -> tuple[Difference, ...]:
    """Tensors that are not as the lock has them, by name. What was not read is no difference."""
    found = {row.name: row for row in rows}
    differences = []
    for key in sorted(lock.tensors.keys() | found.keys()):
        if key not in found:
            differences.append(Difference(key, "missing", _spell(*lock.tensors[key]), None))
            continue
        row = found[key]
        actual = _spell(row.dtype, row.shape, row.digest or "")
        if key not in lock.tensors:
            differences.append(Difference(row.name, "extra", None, actual))
        elif row.digest is not None and _spell(*lock.tensors[key]) != actual:
            differences.append(Difference(row.name, "changed", _spell(*lock.tensors[key]), actual))
    return tuple(differences)


def _spell(dtype: str, shape: tuple[int, ...], digest: str) -> str:
    return f"{dtype} {list(shape)} {digest}"
