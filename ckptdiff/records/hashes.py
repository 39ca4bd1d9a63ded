"""`ckptdiff.hash/1` and `ckptdiff.verify/1`: the reports of hash, as written to JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.report import Tool

HASH_SCHEMA = "ckptdiff.hash/1"
VERIFY_SCHEMA = "ckptdiff.verify/1"


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor with its digest, xxh3_128 in hex; None when it could not be read."""

    name: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    digest: str | None


@dataclass(frozen=True, slots=True)
class FileRow:
    """One shard with its SHA-256, for tools that know nothing of tensors."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class HashReport:
    """`ckptdiff.hash/1`: the fingerprint of a checkpoint and the digests it is made of.

    `files` is empty unless SHA-256 was asked for.
    """

    schema: str
    tool: Tool
    path: str
    fingerprint: str | None
    tensors: tuple[TensorRow, ...]
    files: tuple[FileRow, ...]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor that is not as the lock has it."""

    name: str
    what: Literal["changed", "missing", "extra"]
    expected: str | None
    actual: str | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`ckptdiff.verify/1`: a checkpoint against a lock file."""

    schema: str
    tool: Tool
    path: str
    lock: str
    same: bool
    expected: str
    fingerprint: str | None
    differences: tuple[Difference, ...]
    unread: tuple[Unread, ...]
