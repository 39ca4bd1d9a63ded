"""How much of one checkpoint is in another: a count over digests, nothing is read."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.detail import Overlap
from ckptdiff.records.evidence import SchemeEvidence

Leaf = tuple[str, str, tuple[int, ...], bytes]


def overlap(schemes: Sequence[SchemeEvidence]) -> Overlap:
    """Bytes and tensors that each scheme shares with each other one, by key and digest."""
    leaves = [_leaves(scheme) for scheme in schemes]
    pairs = [[_common(one, other) for other in leaves] for one in leaves]
    return Overlap(
        schemes=tuple(scheme.id for scheme in schemes),
        nbytes=tuple(scheme.checkpoint.nbytes for scheme in schemes),
        counts=tuple(len(scheme.tensors) for scheme in schemes),
        shared=tuple(tuple(pair and pair[0] for pair in row) for row in pairs),
        tensors=tuple(tuple(pair and pair[1] for pair in row) for row in pairs),
    )


def _leaves(scheme: SchemeEvidence) -> dict[Leaf, int] | None:
    """The tensors of a scheme with their bytes; None when one of them has no digest."""
    if scheme.fingerprint is None:
        return None
    return {
        (key, tensor.dtype, tensor.shape, scheme.digests[name]): tensor.nbytes
        for key, (name, tensor, _) in scheme.tensors.items()
    }


def _common(one: dict[Leaf, int] | None, other: dict[Leaf, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return None
    common = one.keys() & other.keys()
    return sum(one[leaf] for leaf in common), len(common)
