"""Which dialects explain the weights of a checkpoint, as few of them as will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ckptdiff.records.proof import Proof
from ckptdiff.records.report import ProofRow


def proof_row(proofs: Iterable[Proof]) -> ProofRow:
    """The counts of one scheme, and who wrote what is proven."""
    proofs = tuple(proofs)
    count = Counter(proof.status for proof in proofs)
    return ProofRow(
        proven=count["proven"],
        searched=count["searched"],
        wrong=count["codes"] + count["scale"],
        unknown=count["unknown"],
        dialects=writers(proof for proof in proofs if proof.status == "proven"),
    )


def writers(proofs: Iterable[Proof]) -> tuple[str, ...]:
    """The dialects of proven weights, those that explain most of them first.

    A weight that several dialects explain counts for the one that explains most others too;
    between equals the likeliest comes first, and that is the order of their names.
    Without its device where all its weights could have been written on either.
    """
    left = [_ways(proof) for proof in proofs]
    found = []
    while left:
        count = Counter(way for ways in left for way in ways)
        best = min(count, key=lambda way: (-count[way], "scales" in way, way))
        host, _, device = best.partition(" ")
        other = f"{host} {'cuda' if device == 'cpu' else 'cpu'}"
        explained = [ways for ways in left if best in ways]
        found.append(host if all(other in ways for ways in explained) else best)
        left = [ways for ways in left if best not in ways]
    return tuple(dict.fromkeys(found))


def _ways(proof: Proof) -> tuple[str, ...]:
    """The dialects that explain codes and scales; a mixture where none explains both."""
    devices = {_device(way) for way in proof.scale_dialects}
    both = tuple(way for way in proof.code_dialects if _device(way) in devices)
    return both or tuple(
        f"{way} with scales of {_device(scales)}"
        for way in proof.code_dialects[:1]
        for scales in proof.scale_dialects[:1]
    )


def _device(way: str) -> str:
    return way.partition(" ")[2]
