"""Looks at a sweep: digests, casts and comparisons, put together as evidence."""

from __future__ import annotations

import time

from ckptdiff.analysis.evidence import casts_wanted, gather, with_base, with_proofs
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing, digest_casts, digest_shards
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.sweep import Sweep


def look(
    sweep: Sweep,
    how: Hashing | None,
    *,
    compare: bool,
    deep: bool = False,
    jobs: int | None = None,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Evidence, tuple[Unread, ...]]:
    """Everything that rules need to know of `sweep`, and what could not be read for it.

    `how` None: headers alone. `compare`: the tensors of the base are read too, so that
    unquantized ones can be held against them. `deep`: quantized weights are recomputed from
    the base, on `jobs` threads. Raises `Cancelled`.
    """
    since = time.time_ns()
    evidence, lost = _looked(sweep, how, compare=compare, sink=sink, cancel=cancel)
    if not deep or evidence.base is None:
        return evidence, lost
    # Imported late: it needs numpy and all of the arithmetic.
    from ckptdiff.jobs.outcomes import Memory
    from ckptdiff.jobs.proving import prove

    memory = Memory(how.cache, since, not how.rehash) if how else Memory(None, since)
    proofs = {
        scheme.id: prove(scheme, evidence.base, jobs=jobs, sink=sink, cancel=cancel, memory=memory)
        for scheme in evidence.schemes
    }
    return with_proofs(evidence, proofs), lost


def _looked(
    sweep: Sweep, how: Hashing | None, *, compare: bool, sink: Sink, cancel: CancelToken
) -> tuple[Evidence, tuple[Unread, ...]]:
    if how is None:
        return with_base(gather(sweep, None, cancel), {}, cancel), ()
    checkpoints = list(sweep.schemes)
    if compare and sweep.base is not None:
        checkpoints.append(sweep.base.checkpoint)
    shards = [shard for checkpoint in checkpoints for shard in checkpoint.shards]
    evidence = gather(sweep, digest_shards(shards, how, sink=sink, cancel=cancel), cancel)
    if not compare or evidence.base is None:
        return with_base(evidence, {}, cancel), ()
    base = evidence.base
    wanted = casts_wanted(evidence)
    casts = digest_casts(base.checkpoint, base.digests, wanted, how, sink=sink, cancel=cancel)
    return with_base(evidence, casts.digests, cancel), tuple(casts.unread)
