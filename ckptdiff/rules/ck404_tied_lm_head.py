"""CK404 tied-lm-head."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import is_tied_head
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class TiedLmHead(Rule):
    """The embeddings are tied, and a quantized lm_head is stored all the same.

    A loader ties lm_head to the embedding and drops the codes, so what was measured with
    the quantized head is not what is served. AutoQuant takes a tied lm_head unless it is
    disabled.

    What to do: re-export with lm_head disabled.
    """

    code = "CK404"
    name = "tied-lm-head"
    severity = "error"
    since = "0.1"
    needs = ("headers", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            for module in scheme.coverage.modules.values():
                if module.quantized and is_tied_head(scheme, module):
                    yield self.finding(
                        [scheme],
                        "tie_word_embeddings is true and lm_head is quantized",
                        expected="no lm_head of its own",
                        actual=f"lm_head in {module.dtype}",
                        locations=[
                            Location(
                                module=module.name,
                                tensor=module.weight,
                                shard=module.shard,
                                expected="no such tensor",
                                actual=module.dtype,
                            )
                        ],
                    )
