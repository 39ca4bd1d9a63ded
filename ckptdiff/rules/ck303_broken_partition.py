"""CK303 broken-partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckptdiff.formats.names import module_key
from ckptdiff.records.checkpoint import BaselineManifest, CoverageManifest
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class BrokenPartition(Rule):
    """Selected and dropped recipes do not split the ranking in two, or are miscounted.

    Together, `selected_layers` and `dropped_layers` name every recipe of the ranking that
    could be quantized, each once, and `num_layers_selected`, `num_layers_dropped` and
    `num_layers_total` count them.

    What to do: write the coverage manifest again from the ranking of its baseline.
    """

    code = "CK303"
    name = "broken-partition"
    severity = "error"
    since = "0.1"
    needs = ("manifest",)

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            manifest = scheme.checkpoint.coverage[0]
            faults = [
                *_counts(manifest),
                *_repeated(manifest),
                *_against_ranking(manifest, scheme.baseline),
            ]
            if faults:
                first = faults[0]
                place = first.module or "a count"
                more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
                yield self.finding(
                    [scheme],
                    f"the coverage manifest is no partition of the ranking: {place} "
                    f"is {first.actual}, expected {first.expected}{more}",
                    expected=first.expected,
                    actual=first.actual,
                    locations=faults,
                )


def _counts(manifest: CoverageManifest) -> Iterator[Location]:
    selected, dropped = len(manifest.selected), len(manifest.dropped)
    for field, stated, counted in (
        ("num_layers_selected", manifest.num_selected, selected),
        ("num_layers_dropped", manifest.num_dropped, dropped),
        ("num_layers_total", manifest.total, selected + dropped),
    ):
        if stated is not None and stated != counted:
            yield Location(
                shard=manifest.name,
                expected=f"{field} {counted}",
                actual=f"{field} {stated}",
            )


def _repeated(manifest: CoverageManifest) -> Iterator[Location]:
    selected, dropped = Counter(manifest.selected), Counter(manifest.dropped)
    for name, count in (selected + dropped).items():
        if count > 1:
            both = "selected and dropped" if selected[name] and dropped[name] else "listed twice"
            yield Location(module=name, shard=manifest.name, expected="listed once", actual=both)


def _against_ranking(
    manifest: CoverageManifest, baseline: BaselineManifest | None
) -> Iterator[Location]:
    """Recipes that only one side knows. Ineligible ones may be listed or left out."""
    if baseline is None:
        return
    listed = {module_key(name): name for name in manifest.selected + manifest.dropped}
    ranked = {module_key(name): name for name in (*baseline.ranking, *baseline.recipes)}
    never = {module_key(r.name) for r in baseline.recipes.values() if not r.eligible}
    for key in sorted(ranked.keys() - listed.keys() - never):
        yield Location(
            module=ranked[key],
            shard=manifest.name,
            expected="selected or dropped",
            actual="not listed",
        )
    for key in sorted(listed.keys() - ranked.keys()):
        yield Location(
            module=listed[key],
            shard=manifest.name,
            expected=f"a recipe of {baseline.name}",
            actual="not ranked",
        )
