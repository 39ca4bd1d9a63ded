"""CK210 zero-tensor."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.proof import Proof
from ckptdiff.rules.recomputed import RecomputedRule, modules


class ZeroTensor(RecomputedRule):
    """Every value of a quantized weight is zero, and the base's are not.

    A buffer that was allocated and never filled, as a killed or an out-of-memory export leaves
    it. (What ModelOpt makes of a base weight that is zero itself, a scale of 0, is CK203's.)

    What to do: re-export the scheme.
    """

    code = "CK210"
    name = "zero-tensor"
    severity = "error"
    since = "0.1"
    fix = "reexport"

    def concerns(self, proof: Proof) -> bool:
        return proof.zero

    def message(self, proofs: Sequence[Proof]) -> str:
        return f"{modules(proofs)}: every value of the weight is zero"

    def expected(self, proof: Proof) -> str:
        return "values other than zero, as in the base"

    def actual(self, proof: Proof) -> str:
        return f"{proof.codes:,} zeros"
