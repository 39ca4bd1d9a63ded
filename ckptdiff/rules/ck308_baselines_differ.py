"""CK308 baselines-differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from ckptdiff.records.checkpoint import BaselineManifest
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class BaselinesDiffer(Rule):
    """The baseline manifests of one family rank the recipes differently.

    All schemes of a family are cut from one ranking. A copy that differs belongs to another
    search of the same name, so the scheme may be no point of this curve.

    What to do: find out which search the scheme was cut from and keep that manifest.
    """

    code = "CK308"
    name = "baselines-differ"
    severity = "warning"
    since = "0.1"
    needs = ()

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        families: dict[str, list[tuple[SchemeEvidence, BaselineManifest]]] = defaultdict(list)
        for scheme in evidence.schemes:
            if scheme.baseline is not None:
                families[scheme.family].append((scheme, scheme.baseline))
        for members in families.values():
            rankings = Counter(baseline.ranking for _, baseline in members)
            usual = max(rankings, key=lambda ranking: rankings[ranking])
            for scheme, baseline in members:
                if baseline.ranking != usual:
                    yield self._finding(scheme, baseline, usual)

    def _finding(
        self, scheme: SchemeEvidence, baseline: BaselineManifest, usual: tuple[str, ...]
    ) -> Finding:
        ranks = {name: rank for rank, name in enumerate(usual, 1)}
        moved = [
            Location(
                module=name,
                shard=baseline.name,
                expected=f"rank {ranks[name]}" if name in ranks else "not ranked",
                actual=f"rank {rank}",
            )
            for rank, name in enumerate(baseline.ranking, 1)
            if ranks.get(name) != rank
        ]
        lost = [
            Location(module=name, shard=baseline.name, expected="ranked", actual="not ranked")
            for name in usual
            if name not in set(baseline.ranking)
        ]
        return self.finding(
            [scheme],
            "its baseline manifest ranks the recipes differently from the rest of the family",
            expected=f"the ranking of the family, {len(usual)} recipes",
            actual=f"{len(moved) + len(lost)} recipes at another place",
            locations=moved + lost,
        )
