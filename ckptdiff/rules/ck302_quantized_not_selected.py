"""CK302 quantized-not-selected."""

from __future__ import annotations

from collections.abc import Iterable

from ckptdiff.analysis.quantization import is_tied_head
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.rules.coverage import CoverageRule


class QuantizedNotSelected(CoverageRule):
    """Modules are quantized on disk that the coverage manifest drops or does not name.

    The scheme is quantized further than it says, so whatever was measured on it does not
    belong to its place on the coverage curve. A tied `lm_head` is CK404's.

    What to do: re-export the scheme with those modules disabled, then check again.
    """

    code = "CK302"
    name = "quantized-not-selected"
    severity = "error"
    since = "0.1"
    should_be = "unquantized"

    def wrong(self, scheme: SchemeEvidence) -> Iterable[Module]:
        modules = [scheme.coverage.modules[key] for key in scheme.coverage.not_selected]
        return [module for module in modules if not is_tied_head(scheme, module)]

    def counts(self, scheme: SchemeEvidence, wrong: int) -> tuple[str, str, str]:
        quantized = len(scheme.coverage.quantized)
        return (
            f"{wrong} of {quantized} quantized modules are not selected",
            f"{quantized - wrong} modules quantized",
            f"{quantized} modules quantized",
        )
