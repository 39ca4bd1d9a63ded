"""CK305 not-nested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class NotNested(Rule):
    """A scheme does not contain the schemes of its family that cover less.

    Every scheme of a family takes the first part of one ranking, so what top10 selects,
    top30 selects too. If not, two rankings were used, and the schemes are no points of one
    coverage curve. Declared sets are compared; whether the tensors follow them is for other
    rules to say.

    What to do: write the coverage manifests from one ranking and export again.
    """

    code = "CK305"
    name = "not-nested"
    severity = "warning"
    since = "0.1"
    needs = ("manifest",)

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        families: dict[str, list[SchemeEvidence]] = defaultdict(list)
        for scheme in evidence.schemes:
            families[scheme.family].append(scheme)
        for family in families.values():
            for smaller, larger in pairwise(_steps(family)):
                for scheme in larger:
                    yield from self._compare(smaller, scheme)

    def _compare(
        self, smaller: Sequence[SchemeEvidence], scheme: SchemeEvidence
    ) -> Iterator[Finding]:
        missing = {
            key: other
            for other in smaller
            for key in (other.coverage.selected or frozenset())
            - (scheme.coverage.selected or set())
            # A module that this checkpoint does not have cannot be selected in it.
            if key in scheme.coverage.modules
        }
        if missing:
            others = ", ".join(sorted({other.id for other in missing.values()}))
            yield self.finding(
                [scheme],
                f"drops {len(missing)} modules that the smaller {others} selects",
                expected=f"every module of {others}",
                actual=f"{len(missing)} of them dropped",
                locations=[
                    Location(
                        module=scheme.coverage.modules[key].name,
                        expected=f"selected, as in {other.id}",
                        actual="dropped",
                    )
                    for key, other in missing.items()
                ],
            )


def _steps(family: Sequence[SchemeEvidence]) -> list[list[SchemeEvidence]]:
    """The schemes of a family by declared percentage, equal ones together."""
    steps: dict[float, list[SchemeEvidence]] = defaultdict(list)
    for scheme in family:
        declared = scheme.coverage.declared
        if declared is not None and declared.percent is not None:
            steps[declared.percent].append(scheme)
    return [steps[percent] for percent in sorted(steps)]
