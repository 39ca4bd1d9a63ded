"""CK406 scales-dropped."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding
from ckptdiff.rules.base import Rule


class ScalesDropped(Rule):
    """Plain transformers would load the codes of this checkpoint without their scales.

    It has no quantizer for `modelopt`: `from_pretrained` casts the codes to the model's
    dtype, warns that the scales are unused, and computes with garbage that looks the same
    for every scheme of a sweep. Serving engines read the scales.

    What to do: nothing, if a serving engine loads it; do not evaluate it by plain
    `from_pretrained`.
    """

    code = "CK406"
    name = "scales-dropped"
    severity = "info"
    since = "0.1"
    needs = ("headers", "modelopt")

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            count = sum(
                scheme.coverage.modules[key].name in scheme.scales
                for key in scheme.coverage.quantized
            )
            if count:
                yield self.finding(
                    [scheme], "plain transformers would drop the scales of its quantized modules"
                )
