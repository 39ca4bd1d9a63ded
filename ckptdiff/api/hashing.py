"""`hash`, `lock` and `verify`: digests of one checkpoint, written down and held against."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.hashing.fingerprint import fingerprint
from ckptdiff.analysis.summary import hidden
from ckptdiff.api.common import StrPath, tool
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.lock import parse_lock, write_lock
from ckptdiff.formats.names import keys_of
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.jobs.locking import compare_with_lock, sha256_files
from ckptdiff.jobs.reading import read_one
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.hashes import (
    HASH_SCHEMA,
    VERIFY_SCHEMA,
    HashReport,
    TensorRow,
    VerifyReport,
)
from ckptdiff.sources.cache import Cache
from ckptdiff.sources.local import Unreadable, read_document


def hash(
    path: StrPath,
    *,
    sha256: bool = False,
    cache: bool = True,
    rehash: bool = False,
    jobs: int | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> HashReport:
    """The fingerprint of one checkpoint, and the digests it is made of.

    `sha256` adds the SHA-256 of each shard file. Raises `RootError` when `path` holds no
    safetensors and `Cancelled` when `cancel` is set.
    """
    cancel = cancel or CancelToken()
    checkpoint = read_one(Path(path))
    how = Hashing(Cache() if cache else None, rehash, scan=False, jobs=jobs)
    found = scheme_evidence(
        checkpoint, digest_shards(checkpoint.shards, how, sink=sink, cancel=cancel)
    )
    keys = keys_of(name for name, _, _ in checkpoint.items())
    files, lost = sha256_files(checkpoint.shards, sink=sink, cancel=cancel) if sha256 else ((), ())
    lacking = {shard.name for name, _, shard in checkpoint.items() if name not in found.digests}
    broken = hidden(checkpoint)
    broken += tuple(
        Unread(name, "not all of its tensors have bytes of their own in it")
        for name in sorted(lacking - {item.path for item in found.unread + broken})
    )
    return HashReport(
        schema=HASH_SCHEMA,
        tool=tool(),
        path=str(path),
        fingerprint=found.fingerprint,
        tensors=tuple(
            TensorRow(name, keys[name], tensor.dtype, tensor.shape, _hex(found.digests.get(name)))
            for name, tensor, _ in checkpoint.items()
        ),
        files=files,
        unread=tuple(dict.fromkeys(found.unread + lost + broken)),
    )


def lock(report: HashReport) -> bytes:
    """The lock file for a report of `hash`.

    Raises `UsageError` when not every tensor was read: half a lock would lock nothing.
    """
    if report.fingerprint is None or report.unread:
        raise UsageError(
            f"not all of {report.path} could be read, so it cannot be locked",
            f"`ckptdiff check {shlex.quote(report.path)}` says what is wrong.",
        )
    return write_lock(report).encode("utf-8", "surrogatepass")


def verify(path: StrPath, lock_file: StrPath, **options: Any) -> VerifyReport:
    """The checkpoint at `path` against a lock file. `options` are those of `hash`.

    Raises `UsageError` when the lock cannot be read or understood, and as `hash` does.
    """
    try:
        text = read_document(Path(lock_file)).decode("utf-8", "surrogatepass")
    except (Unreadable, UnicodeDecodeError) as error:
        raise UsageError(f"{lock_file} cannot be read: {error}", "Check the path.") from error
    locked = parse_lock(text, str(lock_file))
    keys = keys_of(locked.tensors)
    leaves = [
        (keys[name], dtype, shape, bytes.fromhex(digest))
        for name, (dtype, shape, digest) in locked.tensors.items()
    ]
    if fingerprint(leaves) != locked.fingerprint:
        raise UsageError(
            f"{lock_file} contradicts itself: its tensors do not add up to its fingerprint",
            "Somebody edited it; write it again from a checkpoint that you trust.",
        )
    report = hash(path, **options)
    differences = compare_with_lock(locked, report.tensors) if not report.unread else ()
    if report.unread:
        # What could not be read is not missing; what was read and differs is different.
        differences = tuple(
            d for d in compare_with_lock(locked, report.tensors) if d.what == "changed"
        )
    return VerifyReport(
        schema=VERIFY_SCHEMA,
        tool=tool(),
        path=str(path),
        lock=str(lock_file),
        same=report.fingerprint == locked.fingerprint and not (report.unread or differences),
        expected=locked.fingerprint,
        fingerprint=report.fingerprint,
        differences=differences,
        unread=report.unread,
    )


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()
