"""What is remembered between runs: the digests and flaws of a shard, and casts of tensors.

A shard is remembered under what its file is (device, inode, size, both times, header), so
that any write that the file system notices makes it a stranger. A file that was written to
within the last two seconds is not remembered: clocks of file systems are coarse, and the
next write could leave the same times. One hole stays, which `--rehash` is for: a store
through a memory map whose page is already dirty changes no time until it is written back.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from ckptdiff.records.checkpoint import Shard
from ckptdiff.records.digests import Flaws, ShardDigests
from ckptdiff.sources.cache import Cache

_VERSION = b"1"
_DIGEST_BYTES = 16
_SETTLED_NS = 2_000_000_000


def recall(cache: Cache, shards: Sequence[Shard]) -> dict[str, ShardDigests]:
    """The shards that are remembered, by path."""
    keys = {shard.path: _shard_key(shard) for shard in shards if _can_have_key(shard)}
    blobs = cache.get(keys.values())
    found = {}
    for shard in shards:
        blob = blobs.get(keys[shard.path]) if shard.path in keys else None
        if blob is not None and (digests := _decode(shard, blob)) is not None:
            found[shard.path] = digests
    return found


def remember(cache: Cache, shards: Sequence[Shard], digests: Mapping[str, ShardDigests]) -> None:
    """Store what was found out about `shards`, where it is whole and the file has settled."""
    now = time.time_ns()
    blobs = {}
    for shard in shards:
        found = digests.get(shard.path)
        whole = (
            found is not None and found.unread is None and len(found.digests) == len(shard.stored)
        )
        if whole and found and _can_have_key(shard) and is_settled(shard, now):
            blobs[_shard_key(shard)] = _encode(shard, found)
    cache.put(blobs)


def recall_casts(
    cache: Cache, wanted: Mapping[tuple[str, str], bytes]
) -> dict[tuple[str, str], bytes]:
    """Remembered casts; `wanted` maps what is asked for to the key of `cast_key`."""
    blobs = cache.get(wanted.values())
    return {what: blobs[key] for what, key in wanted.items() if key in blobs}


def cast_key(digest: bytes, source: str, target: str) -> bytes:
    """The key of a tensor's digest after a cast, which depends on its bytes alone."""
    return b"cast" + _VERSION + digest + f"{source}>{target}".encode()


def _shard_key(shard: Shard) -> bytes:
    assert shard.identity is not None
    return b"shard" + _VERSION + struct.pack("<5q", *_signed(shard)) + shard.header_digest


def _signed(shard: Shard) -> list[int]:
    # Device and inode numbers are unsigned 64-bit; keep their bits in signed fields.
    return [(v + 2**63) % 2**64 - 2**63 for v in astuple(shard.identity)]  # type: ignore[arg-type]


def _can_have_key(shard: Shard) -> bool:
    return shard.identity is not None and shard.header is not None


def is_settled(shard: Shard, now: int) -> bool:
    assert shard.identity is not None
    return now - max(shard.identity.mtime_ns, shard.identity.ctime_ns) > _SETTLED_NS


def _encode(shard: Shard, found: ShardDigests) -> bytes:
    digests = b"".join(found.digests[name] for name in shard.stored)
    places = {name: position for position, name in enumerate(shard.stored)}
    flaws = [[places[name], *astuple(flaw)] for name, flaw in sorted(found.flaws.items())]
    return digests + json.dumps(flaws).encode()


def _decode(shard: Shard, blob: bytes) -> ShardDigests | None:
    names = list(shard.stored)
    end = len(names) * _DIGEST_BYTES
    if len(blob) <= end:
        return None
    digests = {
        name: blob[at : at + _DIGEST_BYTES]
        for name, at in zip(names, range(0, end, _DIGEST_BYTES), strict=True)
    }
    flaws = {names[row[0]]: Flaws(*row[1:]) for row in json.loads(blob[end:])}
    return ShardDigests(digests, flaws=flaws)
