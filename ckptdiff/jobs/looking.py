"""Looks at a sweep: digests, casts and comparisons, put together as evidence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ckptdiff.analysis.evidence import (
    casts_wanted,
    gather,
    scheme_evidence,
    with_base,
    with_proofs,
)
from ckptdiff.analysis.identity import identity_groups
from ckptdiff.analysis.ordering import natural
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing, digest_casts, digest_shards
from ckptdiff.jobs.viewing import with_views
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.evidence import Evidence, IdentityGroup, SchemeEvidence
from ckptdiff.records.sweep import Sweep


def look(
    sweep: Sweep,
    how: Hashing | None,
    *,
    compare: bool,
    deep: bool = False,
    jobs: int | None = None,
    on_identity: Callable[[tuple[IdentityGroup, ...]], None] | None = None,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Evidence, tuple[Unread, ...]]:
    """Everything that rules need to know of `sweep`, and what could not be read for it.

    `how` None: headers alone. `compare`: the tensors of the base are read too, so that
    unquantized ones can be held against them. `deep`: quantized weights are recomputed from
    the base, on `jobs` threads. `on_identity` hears, in any thread, which of the schemes that
    are hashed by now are the same. Raises `Cancelled`.
    """
    since = time.time_ns()
    letters = None if on_identity is None else _Letters(sweep, on_identity)
    evidence, lost = _looked(sweep, how, compare=compare, letters=letters, sink=sink, cancel=cancel)
    if not deep or evidence.base is None:
        return evidence, lost
    # Imported late: it needs numpy and all of the arithmetic.
    from ckptdiff.jobs.outcomes import Memory
    from ckptdiff.jobs.proving import prove

    memory = Memory(how.cache, since, not how.rehash) if how else Memory(None, since)
    proofs = {
        scheme.id: prove(scheme, base, jobs=jobs, sink=sink, cancel=cancel, memory=memory)
        for scheme in evidence.schemes
        if (base := evidence.base_of(scheme))
    }
    return with_proofs(evidence, proofs), lost


class _Letters:
    """Groups the schemes that are hashed by now. Only those are grouped that come before the
    first one that is not, so that no group's letter changes later."""

    def __init__(self, sweep: Sweep, say: Callable[[tuple[IdentityGroup, ...]], None]) -> None:
        self._schemes = sorted(sweep.schemes, key=lambda scheme: natural(scheme.id))
        self._say = say
        self._digests: dict[str, ShardDigests] = {}
        self._lock = threading.Lock()
        # What is made of a scheme on the way need not be made again at the end.
        self.evidence: dict[str, SchemeEvidence] = {}

    def __call__(self, path: str, digests: ShardDigests) -> None:
        """A shard is hashed."""
        with self._lock:
            self._digests[path] = digests
            before = len(self.evidence)
            for scheme in self._schemes[before:]:
                paths = [shard.path for shard in scheme.shards if shard.header is not None]
                if not all(path in self._digests for path in paths):
                    break
                self.evidence[scheme.id] = scheme_evidence(scheme, self._digests)
            if len(self.evidence) > before:
                self._say(identity_groups(tuple(self.evidence.values())))


def _looked(
    sweep: Sweep,
    how: Hashing | None,
    *,
    compare: bool,
    letters: _Letters | None,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Evidence, tuple[Unread, ...]]:
    if how is None:
        evidence, _ = with_views(gather(sweep, None, cancel), None, None, sink=sink, cancel=cancel)
        return with_base(evidence, {}, cancel), ()
    checkpoints = list(sweep.schemes)
    if compare and sweep.base is not None:
        checkpoints.append(sweep.base.checkpoint)
    shards = [shard for checkpoint in checkpoints for shard in checkpoint.shards]
    digests = digest_shards(shards, how, on_shard=letters, sink=sink, cancel=cancel)
    evidence = gather(sweep, digests, cancel, known=letters.evidence if letters else {})
    evidence, lost = with_views(evidence, digests, how, sink=sink, cancel=cancel)
    if not compare or evidence.base is None:
        return with_base(evidence, {}, cancel), ()
    casts = dict[tuple[str, str], bytes]()
    for base in evidence.bases:
        wanted = casts_wanted(evidence, base)
        found = digest_casts(base.checkpoint, base.digests, wanted, how, sink=sink, cancel=cancel)
        casts |= found.digests
        lost += tuple(found.unread)
    return with_base(evidence, casts, cancel), tuple(dict.fromkeys(lost))
