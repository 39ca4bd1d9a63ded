"""CK211 saturation."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.proof import MOST_SATURATED, Proof
from ckptdiff.rules.recomputed import RecomputedRule, is_far, modules


class Saturation(RecomputedRule):
    """More codes than is usual are the largest that there are: values were cut off.

    Judged where no closed form proves the weight, and CK209 finds nothing: a scale so small
    that the tail of the weights no longer fits. Some codes always are at their extreme: in
    healthy exports up to 1.3 % in INT4, 11 % in NVFP4 and 0.5 % in INT8, more where groups are
    small. The limits are 25 % for 4 bits and 5 % for 8.

    What to do: calibrate again; look at the outliers of the base weight.
    """

    code = "CK211"
    name = "saturation"
    severity = "warning"
    since = "0.1"
    fix = "reexport"

    def concerns(self, proof: Proof) -> bool:
        if proof.status != "searched" or proof.saturated is None or is_far(proof):
            return False
        assert proof.layout is not None
        return not proof.zero and proof.saturated > MOST_SATURATED[proof.layout]

    def message(self, proofs: Sequence[Proof]) -> str:
        return f"{modules(proofs)}: many codes are at their extreme"

    def expected(self, proof: Proof) -> str:
        assert proof.layout is not None
        return f"at most {MOST_SATURATED[proof.layout]:.0%} of the codes"

    def actual(self, proof: Proof) -> str:
        return f"{proof.saturated:.1%}"
