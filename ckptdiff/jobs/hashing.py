"""Hashes a sweep and its base: each byte once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptdiff.analysis.hashing import hash_shards
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.records.checkpoint import Checkpoint, Shard, Unread
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.sweep import Sweep
from ckptdiff.sources.local import Unreadable


def digest_sweep(
    sweep: Sweep, *, with_base: bool, jobs: int | None, sink: Sink, cancel: CancelToken
) -> Mapping[str, ShardDigests]:
    """The digests of all shards of the schemes, and of the base if asked for, by path.

    Raises `Cancelled`; what cannot be read is `ShardDigests.unread`.
    """
    checkpoints = list(sweep.schemes)
    if with_base and sweep.base is not None:
        checkpoints.append(sweep.base.checkpoint)
    shards = [shard for checkpoint in checkpoints for shard in checkpoint.shards]
    return hash_shards(shards, jobs=jobs, sink=sink, cancel=cancel)


@dataclass(slots=True)
class Casts:
    """Digests of base tensors in other dtypes, and what could not be read for them."""

    digests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)


def digest_casts(
    base: Checkpoint, wanted: set[tuple[str, str]], *, sink: Sink, cancel: CancelToken
) -> Casts:
    """The digest of each wanted (tensor name, dtype) of the base. Raises `Cancelled`."""
    casts = Casts()
    if not wanted:
        return casts
    from ckptdiff.analysis.casting import cast_tensor

    homes = {name: shard for name, _, shard in base.items()}
    sink(Started("cast", sum(_nbytes(homes, name) for name, _ in wanted), "bytes"))
    for name, dtype in sorted(wanted):
        shard = homes[name]
        try:
            casts.digests[name, dtype] = cast_tensor(shard, name, dtype, cancel)
        except Unreadable as error:
            casts.unread.append(Unread(f"{base.id}/{shard.name}", error.reason))
        sink(Advanced("cast", _nbytes(homes, name), name))
    sink(Finished("cast"))
    return casts


def _nbytes(homes: Mapping[str, Shard], name: str) -> int:
    return homes[name].tensors[name].nbytes
