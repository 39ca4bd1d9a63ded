"""What the rules about recomputed weights share: each reports one kind of outcome."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location, Need
from ckptdiff.records.proof import LOWEST_SQNR_DB, Proof
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class RecomputedRule(Rule):
    """A rule about quantized weights that were recomputed from the base, which `check --deep`
    does. Every module that `concerns` it is a location."""

    needs: ClassVar[tuple[Need, ...]] = ("headers", "modelopt", "proof")

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            proofs = [p for p in self.judged(evidence, scheme) if self.concerns(p)]
            if proofs:
                places = [
                    Location(
                        module=proof.module,
                        tensor=self.tensor(proof),
                        shard=proof.shard,
                        offset=self.offset(proof, scheme),
                        expected=self.expected(proof),
                        actual=self.actual(proof),
                    )
                    for proof in proofs
                ]
                yield self.finding_at(scheme, self.message(proofs), places)

    def judged(self, evidence: Evidence, scheme: SchemeEvidence) -> Iterable[Proof]:
        """The proofs of a scheme that the rule looks at."""
        return evidence.proofs[scheme.id].values()

    @abstractmethod
    def concerns(self, proof: Proof) -> bool:
        """Whether this is the kind of outcome that the rule reports."""

    @abstractmethod
    def message(self, proofs: Sequence[Proof]) -> str: ...

    @abstractmethod
    def expected(self, proof: Proof) -> str | None: ...

    @abstractmethod
    def actual(self, proof: Proof) -> str: ...

    def tensor(self, proof: Proof) -> str:
        return proof.weight

    def offset(self, proof: Proof, scheme: SchemeEvidence) -> int | None:
        return None


def is_far(proof: Proof) -> bool:
    """Whether a weight that nothing proves is too far from base's to be a quantization of it."""
    if proof.status != "searched" or proof.zero:
        return False
    if proof.sqnr_db is None or proof.layout is None:
        return False
    return proof.sqnr_db < LOWEST_SQNR_DB[proof.layout]


def byte_of(proof: Proof, scheme: SchemeEvidence) -> int | None:
    """Where the first wrong code lies, in bytes from the start of its shard."""
    # Imported late: it needs numpy, and a registry of rules must not.
    from ckptdiff.quant.registry import CODINGS

    for name, tensor, shard in scheme.checkpoint.items():
        if name == proof.weight and shard.header is not None and proof.first is not None:
            assert proof.layout is not None
            coding, (row, column) = CODINGS[proof.layout], proof.first
            start = shard.header.data_start + tensor.data_offsets[0]
            return start + row // coding.rows * tensor.shape[-1] + column // coding.columns
    return None


def place(index: Sequence[int] | None) -> str:
    """Where in a tensor, as text to put behind a value; nothing for a tensor of one value."""
    return f" at {list(index)}" if index else ""


def modules(proofs: Sequence[Proof]) -> str:
    return plural(len(proofs), "module")
