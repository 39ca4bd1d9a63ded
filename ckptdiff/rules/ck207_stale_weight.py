"""CK207 stale-weight."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.proof import Proof
from ckptdiff.rules.recomputed import RecomputedRule, byte_of, modules, place


class StaleWeight(RecomputedRule):
    """The codes of a quantized weight are not what its base weight gives.

    In formats that calibrate by maxima, codes and scales are a function of the base weight
    alone. `check --deep` works them out in every way that ModelOpt is known to (dtype of the
    model, on a CPU or with CUDA) and compares them byte by byte; the report has the form that
    comes nearest. A few codes that differ are a damaged file; a share of them, a weight of
    another revision of the base; all of them, another layer's.

    AWQ and SmoothQuant search for factors that no base tells. Where the factors lie in the
    checkpoint, beside the weight or in the norm in front of it, every value must still be a
    neighbour, in its format, of base's value times its factor; one that is further away was not
    written by an exporter. Where most of a weight is, and of all that follow the same norm, it is
    that norm which is wrong. A code that is one step off where base's value lies at the border
    between the two, to 1.6 %, is not told from rounding; nor is the sign of a zero.

    What to do: re-export the scheme from its base; if every weight of every scheme differs,
    check that `--base` is the model that they were made from.
    """

    code = "CK207"
    name = "stale-weight"
    severity = "error"
    since = "0.1"
    fix = "reexport"

    def concerns(self, proof: Proof) -> bool:
        return proof.status == "codes" and not proof.zero

    def message(self, proofs: Sequence[Proof]) -> str:
        wrong, codes = sum(p.wrong for p in proofs), sum(p.codes for p in proofs)
        found = f"{modules(proofs)}: {wrong:,} of {codes:,} codes are not what the base gives"
        both = sum(proof.scale is not None for proof in proofs)
        return found + (f"; nor are the scales of {both} of them" if both else "")

    def expected(self, proof: Proof) -> str:
        return f"{proof.expected}{place(proof.first)}"

    def actual(self, proof: Proof) -> str:
        return f"{proof.actual}, one of {proof.wrong:,} wrong codes of {proof.codes:,}"

    def offset(self, proof: Proof, scheme: SchemeEvidence) -> int | None:
        return byte_of(proof, scheme)
