"""CK305 not-nested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
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
            for smaller, larger in pairwise(_by_size(family)):
                missing = _selected(smaller) - _selected(larger)
                # A module that this checkpoint does not have cannot be selected in it.
                missing &= larger.coverage.modules.keys()
                if missing:
                    yield self._finding(smaller, larger, missing)

    def _finding(
        self, smaller: SchemeEvidence, larger: SchemeEvidence, missing: frozenset[str]
    ) -> Finding:
        return self.finding(
            [larger],
            f"drops {plural(len(missing), 'module')} that the smaller {smaller.id} selects",
            expected=f"every module of {smaller.id}",
            actual=f"{len(missing)} of them dropped",
            locations=[
                Location(
                    module=larger.coverage.modules[key].name,
                    expected=f"selected, as in {smaller.id}",
                    actual="dropped",
                )
                for key in missing
            ],
        )


def _selected(scheme: SchemeEvidence) -> frozenset[str]:
    return scheme.coverage.selected or frozenset()


def _by_size(family: Sequence[SchemeEvidence]) -> list[SchemeEvidence]:
    """One scheme for each declared set, the smallest set first. Counted, because a share
    that was written down wrong is another fault."""
    first: dict[frozenset[str], SchemeEvidence] = {}
    for scheme in family:
        first.setdefault(_selected(scheme), scheme)
    return [first[selected] for selected in sorted(first, key=len)]
