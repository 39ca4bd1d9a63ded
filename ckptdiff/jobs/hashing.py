"""Hashes a sweep and its base: each byte once, and none that is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.jobs.caching import cast_key, recall, recall_casts, remember
from ckptdiff.records.checkpoint import Checkpoint, Shard, Unread
from ckptdiff.records.digests import ShardDigests
from ckptdiff.sources.cache import Cache
from ckptdiff.sources.local import Unreadable


@dataclass(frozen=True, slots=True)
class Hashing:
    """How hashing is done. `cache` None: nothing is remembered. `rehash`: nothing that is
    remembered is believed. `scan`: values are looked at too; without it, results are not
    remembered. `jobs` None: as many threads as help."""

    cache: Cache | None = None
    rehash: bool = False
    scan: bool = True
    jobs: int | None = None


def digest_shards(
    shards: Sequence[Shard],
    how: Hashing,
    *,
    on_shard: Callable[[str, ShardDigests], None] | None = None,
    sink: Sink,
    cancel: CancelToken,
) -> Mapping[str, ShardDigests]:
    """The digests of `shards` by path, remembered or read now; `on_shard` hears of each as soon
    as it is known, in any thread.

    Raises `Cancelled`; what cannot be read is `ShardDigests.unread`.
    """
    known: dict[str, ShardDigests] = {}
    if how.cache is not None and not how.rehash:
        known = recall(how.cache, shards)
    if on_shard is not None:
        for path, digests in known.items():
            on_shard(path, digests)
    strange = [shard for shard in shards if shard.path not in known and shard.header is not None]
    if not strange:
        return known
    # Imported late: it needs numpy, and nothing has to be read when all is remembered.
    from ckptdiff.analysis.hashing.digests import hash_shards

    fresh: dict[str, ShardDigests] = {}

    def heard(path: str, digests: ShardDigests) -> None:
        fresh[path] = digests
        if on_shard is not None:
            on_shard(path, digests)

    try:
        fresh |= hash_shards(
            strange, scan=how.scan, jobs=how.jobs, on_shard=heard, sink=sink, cancel=cancel
        )
    finally:  # whoever stops half-way goes on from there the next time
        if how.cache is not None and how.scan:
            remember(how.cache, strange, fresh)
    return {**known, **fresh}


@dataclass(slots=True)
class Casts:
    """Digests of base tensors in other dtypes, and what could not be read for them."""

    digests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)


def digest_casts(
    base: Checkpoint,
    known: Mapping[str, bytes],
    wanted: set[tuple[str, str]],
    how: Hashing,
    *,
    sink: Sink,
    cancel: CancelToken,
) -> Casts:
    """The digest of each wanted (tensor name, dtype) of the base, whose digests are `known`.

    Raises `Cancelled`.
    """
    homes = {name: shard for name, _, shard in base.items()}
    keys = {
        (name, dtype): cast_key(known[name], homes[name].tensors[name].dtype, dtype)
        for name, dtype in sorted(wanted)
        if name in known
    }
    casts = Casts()
    if how.cache is not None and not how.rehash:
        casts.digests |= recall_casts(how.cache, keys)
    strange = [what for what in keys if what not in casts.digests]
    if not strange:
        return casts
    from ckptdiff.analysis.hashing.casting import cast_tensor

    sink(Started("cast", sum(homes[name].tensors[name].nbytes for name, _ in strange), "bytes"))
    for name, dtype in strange:
        shard = homes[name]
        try:
            casts.digests[name, dtype] = cast_tensor(shard, name, dtype, cancel)
        except Unreadable as error:
            casts.unread.append(Unread(f"{base.id}/{shard.name}", error.reason))
        sink(Advanced("cast", shard.tensors[name].nbytes, name))
    sink(Finished("cast"))
    if how.cache is not None and not casts.unread:
        how.cache.put({keys[what]: casts.digests[what] for what in strange})
    return casts
