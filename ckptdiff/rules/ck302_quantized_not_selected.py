"""CK302 quantized-not-selected."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import is_tied_head
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class QuantizedNotSelected(Rule):
    """Modules are quantized on disk that the coverage manifest drops or does not name.

    The scheme is quantized further than it says, so whatever was measured on it does not
    belong to its place on the coverage curve. A tied `lm_head` is CK404's.

    What to do: re-export the scheme with those modules disabled, then check again.
    """

    code = "CK302"
    name = "quantized-not-selected"
    severity = "error"
    since = "0.1"
    needs = ("headers", "manifest")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            coverage = scheme.coverage
            wrong = [coverage.modules[key] for key in coverage.not_selected]
            wrong = [module for module in wrong if not is_tied_head(scheme, module)]
            if not wrong or scheme.id in evidence.mislabelled:
                continue
            quantized = len(coverage.quantized)
            yield self.finding(
                [scheme],
                f"{len(wrong)} of {quantized} quantized modules are not selected",
                expected=f"{quantized - len(wrong)} of them quantized",
                actual=f"{quantized} modules quantized",
                locations=[
                    Location(
                        module=module.name,
                        tensor=module.weight,
                        shard=module.shard,
                        expected="unquantized",
                        actual=module.dtype,
                    )
                    for module in wrong
                ],
            )
