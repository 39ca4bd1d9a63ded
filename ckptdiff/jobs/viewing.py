"""The base as schemes are held against it: its experts one by one, where theirs are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.experts import stacked, viewed
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing, digest_casts
from ckptdiff.records.checkpoint import Checkpoint, Shard, Tensor, Unread
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.evidence import Evidence, SchemeEvidence


def with_views(
    evidence: Evidence,
    digests: Mapping[str, ShardDigests] | None,
    how: Hashing | None,
    *,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Evidence, tuple[Unread, ...]]:
    """The evidence with the base as each scheme needs it, and what could not be read for that.

    Layers of one sweep may differ: an export may keep the experts of a layer that it does not
    quantize in one tensor. `digests` and `how` None: nothing is hashed. Raises `Cancelled`.
    """
    if evidence.base is None or not stacked(evidence.base.checkpoint):
        return evidence, ()
    made: list[SchemeEvidence] = []
    views, lost = {}, list[Unread]()
    for scheme in evidence.schemes:
        cancel.raise_if_cancelled()
        view = viewed(evidence.base.checkpoint, [scheme])
        if view is evidence.base.checkpoint:
            continue
        known = next((each for each in made if each.checkpoint == view), None)
        if known is None:
            of_view = digests
            if digests is not None and how is not None:
                of_view, unread = digest_parts(view, digests, how, sink=sink, cancel=cancel)
                lost += unread
            known = scheme_evidence(view, of_view)
            made.append(known)
        views[scheme.id] = known
    return replace(evidence, views=views), tuple(lost)


def digest_parts(
    base: Checkpoint,
    digests: Mapping[str, ShardDigests],
    how: Hashing,
    *,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Mapping[str, ShardDigests], list[Unread]]:
    """`digests` with those of the parts that `base` is viewed in, and what could not be read.

    Raises `Cancelled`.
    """
    parts = {
        shard.path: dict(_parts(shard, digests[shard.path]))
        for shard in base.shards
        if shard.path in digests
    }
    known = {name: sign for found in parts.values() for name, (_, sign) in found.items()}
    wanted = {(name, part.dtype) for found in parts.values() for name, (part, _) in found.items()}
    casts = digest_casts(base, known, wanted, how, sink=sink, cancel=cancel)
    of_parts = {name: digest for (name, _), digest in casts.digests.items()}
    return {
        path: _extended(before, parts.get(path, {}), of_parts) for path, before in digests.items()
    }, casts.unread


def _parts(shard: Shard, digests: ShardDigests) -> Iterator[tuple[str, tuple[Tensor, bytes]]]:
    """Every part with what its bytes are known by: the digest of the whole, and its place."""
    for name, tensor in shard.tensors.items():
        if tensor.part is not None and tensor.part.of in digests.digests:
            begin = tensor.data_offsets[0] - shard.stored[tensor.part.of].data_offsets[0]
            place = repr((begin, tensor.shape, tensor.part.pitch))
            yield name, (tensor, digests.digests[tensor.part.of] + place.encode())


def _extended(
    before: ShardDigests,
    parts: Mapping[str, tuple[Tensor, bytes]],
    digests: Mapping[str, bytes],
) -> ShardDigests:
    """The digests of a shard with those of its parts. Where values that may not be there are is
    known of the first one only: every part of such a tensor counts as one that has them."""
    wholes = {name: part.part.of for name, (part, _) in parts.items() if part.part is not None}
    flaws = {name: before.flaws[of] for name, of in wholes.items() if of in before.flaws}
    found = {name: digests[name] for name in parts if name in digests}
    return replace(before, digests={**before.digests, **found}, flaws={**before.flaws, **flaws})
