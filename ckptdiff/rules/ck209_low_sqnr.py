"""CK209 low-sqnr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.proof import LOWEST_SQNR_DB, Proof
from ckptdiff.rules.recomputed import RecomputedRule, is_far, modules


class LowSqnr(RecomputedRule):
    """A weight that no closed form proves is too far from its base weight.

    AWQ and SmoothQuant search scales with calibration data, so their codes cannot be
    recomputed. What they stand for can be compared: the signal-to-noise ratio of the
    dequantised weight against base's, both as they were when the exporter rounded, that is
    with the columns smoothed. Healthy exports of random and of trained models have 15 dB and
    more in INT4, 20 in NVFP4 and 23 in INT8; a scale that is off by two gives 6 at most, another
    layer's weight about 0. The limits lie between: 9 dB for INT4, 11 for FP4, 14 for 8 bits. A few
    wrong codes are too little for it; CK207 has those.

    What to do: re-export the scheme from its base.
    """

    code = "CK209"
    name = "low-sqnr"
    severity = "error"
    since = "0.1"
    fix = "reexport"

    def judged(self, evidence: Evidence, scheme: SchemeEvidence) -> Iterable[Proof]:
        # What the manifest does not select is CK302's, and the norm in front of it is base's.
        proofs = evidence.proofs[scheme.id]
        return [proofs[key] for key in proofs if key not in scheme.coverage.not_selected]

    def concerns(self, proof: Proof) -> bool:
        return is_far(proof)

    def message(self, proofs: Sequence[Proof]) -> str:
        return f"{modules(proofs)}: the weight is no quantization of base's"

    def expected(self, proof: Proof) -> str:
        assert proof.layout is not None
        return f"at least {LOWEST_SQNR_DB[proof.layout]:g} dB against base"

    def actual(self, proof: Proof) -> str:
        return f"{proof.sqnr_db:.1f} dB"
