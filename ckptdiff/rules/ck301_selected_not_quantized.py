"""CK301 selected-not-quantized."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class SelectedNotQuantized(Rule):
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
    needs = ("headers", "manifest")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            coverage = scheme.coverage
            # A tensor that is not in the headers at all is another rule's, or unknown.
            wrong = [coverage.modules[key] for key in coverage.not_quantized]
            if not wrong or scheme.id in evidence.mislabelled:
                continue
            selected = len(coverage.selected or ())
            yield self.finding(
                [scheme],
                f"{len(wrong)} of {selected} selected modules are not quantized",
                expected=f"{selected} modules quantized",
                actual=f"{selected - len(wrong)} of them quantized",
                locations=[
                    Location(
                        module=module.name,
                        tensor=module.weight,
                        shard=module.shard,
                        expected="quantized",
                        actual=module.dtype,
                    )
                    for module in wrong
                ],
            )
