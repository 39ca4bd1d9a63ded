"""CK502 alias."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding
from ckptdiff.rules.base import Rule


class Alias(Rule):
    """Schemes carry one set of weights, and nothing they declare says that they should not.

    A re-export beside its original, or top90 beside top100 when the last recipe is a
    convolution that stays unquantized. Measuring one of them is enough. Without manifests
    nobody can tell an alias from a copy under a wrong name: then look twice.

    What to do: nothing, or keep one of them. `ckptdiff.testing.assert_distinct(root,
    strict=True)` fails on aliases too.
    """

    code = "CK502"
    name = "alias"
    severity = "info"
    since = "0.1"
    needs = ("hashes",)

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        schemes = {scheme.id: scheme for scheme in evidence.schemes}
        for group in evidence.identity:
            if len(group.schemes) < 2 or group.conflicting:
                continue
            silent = sum(schemes[id].coverage.selected is None for id in group.schemes)
            why = (
                "and declare the same layers"
                if not silent
                else f"({silent} of them without a manifest that says which layers)"
            )
            yield self.finding(
                group.schemes,
                f"{len(group.schemes)} schemes carry the same weights {why}",
                expected=None,
                actual=f"one set, {group.fingerprint}",
            )
