"""CK208 stale-scale."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.proof import Proof
from ckptdiff.rules.recomputed import RecomputedRule, modules, place


class StaleScale(RecomputedRule):
    """A stored scale is not what the base weight gives, and the codes are.

    Every value of the weight is then off by the same factor, which no loader can notice: a
    scale that was doubled, or that belongs to another layer, and an update that wrote weights
    and forgot their scales. A scale may be taken over all linears that share an input, or over
    this one alone, divided by (CPU) or multiplied by the reciprocal (CUDA): any of these is
    fine. Where no weight of a format has the scale of a maximum, but all codes go with theirs,
    the exporter calibrated otherwise; then only CK209 judges. Scales that AWQ or SmoothQuant
    searched are stale when the codes under them are base's under other scales.

    The second scale of an AWQ weight is held against its codes, which tell it to 1 %, and against
    its neighbours': linears that share an input share it, and what NVFP4_AWQ moved from one
    linear to another must cancel out. Less than 1 % on a scale that is alone, or on all of a group,
    is not seen; nor less than 2.5 % where factors were moved to a linear that is not quantized. In
    W4A8_AWQ it follows from the block scales; it is no part of the weight there, but of what a
    kernel makes of it.

    What to do: re-export the scheme, or take the expected scale from the report's JSON.
    """

    code = "CK208"
    name = "stale-scale"
    severity = "error"
    since = "0.1"
    fix = "reexport"

    def concerns(self, proof: Proof) -> bool:
        return proof.status == "scale" and not proof.zero

    def message(self, proofs: Sequence[Proof]) -> str:
        return f"{modules(proofs)}: a scale is not what the base weight gives"

    def expected(self, proof: Proof) -> str:
        return f"{proof.expected}{place(proof.first)}"

    def actual(self, proof: Proof) -> str:
        many = f", one of {proof.wrong:,} wrong scales of {proof.codes:,}" if proof.first else ""
        return f"{proof.actual}{many}"

    def tensor(self, proof: Proof) -> str:
        return f"{proof.module}.{proof.scale}"
