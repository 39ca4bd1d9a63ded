"""CK204 scale-layout."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import reshaped
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class ScaleLayout(Rule):
    """The shape or dtype of a scale goes with no format of its weight.

    A scale is one number, one a row, or one a block of known size. Anything else is cut,
    transposed or from another weight. A weight that has not base's shape is CK604's.

    What to do: re-export the scheme.
    """

    code = "CK204"
    name = "scale-layout"
    severity = "error"
    since = "0.1"
    needs = ("headers", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            told = reshaped(evidence, scheme)
            places = [
                Location(
                    module=misfit.scale.module,
                    tensor=misfit.scale.name,
                    shard=misfit.scale.shard,
                    expected=misfit.expected,
                    actual=misfit.actual,
                )
                for key, layout in scheme.layouts.items()
                if scheme.coverage.modules[key].weight not in told
                for misfit in layout.misfits
            ]
            if places:
                yield self.finding_at(
                    scheme,
                    f"{plural(len(places), 'scale')} of another shape or dtype than the weight's",
                    places,
                )
