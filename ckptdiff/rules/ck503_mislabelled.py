"""CK503 mislabelled."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding
from ckptdiff.rules.base import Rule


class Mislabelled(Rule):
    """A scheme quantizes exactly what another scheme of its family declares.

    Two directories were swapped, or an export was written under the wrong name. Since that
    explains the difference, CK301 and CK302 say nothing about the scheme. Members of a
    group with identical weights are not reported here: CK501 says more.

    What to do: rename the directories, or re-export under the right names.
    """

    code = "CK503"
    name = "mislabelled"
    severity = "error"
    since = "0.1"
    needs = ("hashes", "manifest")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        schemes = {scheme.id: scheme for scheme in evidence.schemes}
        for id, owner in sorted(evidence.mislabelled.items()):
            coverage = schemes[id].coverage
            yield self.finding(
                [id],
                f"quantizes exactly the {len(coverage.quantized)} modules that {owner} declares",
                expected=f"{len(coverage.selected or ())} modules of its own manifest",
                actual=f"the {len(coverage.quantized)} modules of {owner}",
            )
