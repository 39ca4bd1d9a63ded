"""Looks at a sweep: digests, casts and comparisons, put together as evidence."""

from __future__ import annotations

from ckptdiff.analysis.evidence import casts_wanted, gather, with_base
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing, digest_casts, digest_shards
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.sweep import Sweep


def look(
    sweep: Sweep, how: Hashing | None, *, compare: bool, sink: Sink, cancel: CancelToken
) -> tuple[Evidence, tuple[Unread, ...]]:
    """Everything that rules need to know of `sweep`, and what could not be read for it.

    `how` None: headers alone. `compare`: the tensors of the base are read too, so that
    unquantized ones can be held against them. Raises `Cancelled`.
    """
    if how is None:
        return with_base(gather(sweep, None), {}), ()
    checkpoints = list(sweep.schemes)
    if compare and sweep.base is not None:
        checkpoints.append(sweep.base.checkpoint)
    shards = [shard for checkpoint in checkpoints for shard in checkpoint.shards]
    evidence = gather(sweep, digest_shards(shards, how, sink=sink, cancel=cancel))
    if not compare or evidence.base is None:
        return with_base(evidence, {}), ()
    base = evidence.base
    wanted = casts_wanted(evidence)
    casts = digest_casts(base.checkpoint, base.digests, wanted, how, sink=sink, cancel=cancel)
    return with_base(evidence, casts.digests), tuple(casts.unread)
