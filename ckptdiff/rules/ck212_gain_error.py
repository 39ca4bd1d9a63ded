"""CK212 gain-error."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.proof import Proof
from ckptdiff.rules.recomputed import RecomputedRule, modules


class GainError(RecomputedRule):
    """The exporter rounded scales to the model's dtype, but not those that it stored.

    On a GPU, ModelOpt makes the codes of an FP8 weight with the scale in BF16 or F16, and
    stores it in float32. So every value of a weight comes out too large or too small by one
    factor, of up to 0.4 % with BF16. It is far below the error of single values, but it does
    not average out.

    What to do: nothing; or rescale by the factor in the JSON where 0.4 % matters.
    """

    code = "CK212"
    name = "gain-error"
    severity = "info"
    since = "0.1"
    fix = "none"

    def concerns(self, proof: Proof) -> bool:
        return proof.status == "proven" and bool(proof.gain)

    def message(self, proofs: Sequence[Proof]) -> str:
        largest = max(abs(proof.gain or 0) for proof in proofs)
        return f"{modules(proofs)}: values are off by one factor each, by up to {largest:.2%}"

    def expected(self, proof: Proof) -> str | None:
        return None

    def actual(self, proof: Proof) -> str:
        return f"{proof.gain or 0:+.3%}"
