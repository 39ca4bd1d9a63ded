"""CK309 two-manifests."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class TwoManifests(Rule):
    """A scheme has more than one coverage manifest.

    The one that is named after the directory is taken, else the first by name; the others
    are not looked at.

    What to do: remove the ones that belong to other schemes.
    """

    code = "CK309"
    name = "two-manifests"
    severity = "warning"
    since = "0.1"
    needs = ("manifest",)

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            first, *others = scheme.checkpoint.coverage
            if others:
                yield self.finding(
                    [scheme],
                    f"{1 + len(others)} coverage manifests; {first.name} is taken",
                    expected="one coverage manifest",
                    actual=f"{1 + len(others)}",
                    locations=[Location(shard=other.name) for other in (first, *others)],
                )
