"""CK301 selected-not-quantized."""

from __future__ import annotations

from collections.abc import Iterable

from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.rules.coverage import CoverageRule


class SelectedNotQuantized(CoverageRule):
    """The coverage manifest selects modules that are unquantized on disk.

    A recipe stands for its whole group: `q_proj` for q, k and v, `gate_proj` for gate and
    up, one expert for all experts of its layer. Convolutions are never packed by an export
    and a tied `lm_head` has no weight of its own, so neither is expected. Recipes for which
    the search had nothing but a NONE format are not expected either.

    The usual cause is a scheme that was copied from another one, or an AutoQuant run under
    a bits budget that left selected layers alone.

    What to do: re-export the scheme with the modules of its manifest enabled
    (`mtq.quantize` on exactly that subset), then check again.
    """

    code = "CK301"
    name = "selected-not-quantized"
    severity = "error"
    since = "0.1"
    should_be = "quantized"

    def wrong(self, scheme: SchemeEvidence) -> Iterable[Module]:
        # A tensor that is not in the headers at all is another rule's, or unknown.
        return [scheme.coverage.modules[key] for key in scheme.coverage.not_quantized]

    def counts(self, scheme: SchemeEvidence, wrong: int) -> tuple[str, str, str]:
        selected = len(scheme.coverage.selected or ())
        return (
            f"{wrong} of {selected} selected modules are not quantized",
            f"{selected} modules quantized",
            f"{selected - wrong} of them quantized",
        )
