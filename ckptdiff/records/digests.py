"""Digests of tensor bytes: what two checkpoints are compared by before any arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptdiff.records.checkpoint import Unread


@dataclass(frozen=True, slots=True)
class ShardDigests:
    """The digests of the tensors of one shard, or why there are none.

    `digests` maps a tensor's name to 16 bytes, xxh3_128 big-endian. A tensor whose range
    lies outside the file has no entry. With `unread` set `digests` is empty: a shard that
    changed while it was read may not lend half of its tensors to a comparison.
    """

    digests: Mapping[str, bytes]
    unread: Unread | None = None
