"""CK407 tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class Tokenizer(Rule):
    """Tokenizer, processor or chat template are missing, or are not those of the base.

    ModelOpt's export writes none of them; whoever exports copies them. A scheme with another
    tokenizer is measured on other tokens.

    What to do: copy the files from the base, unless they were changed on purpose.
    """

    code = "CK407"
    name = "tokenizer"
    severity = "info"
    since = "0.1"
    needs = ("base",)

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        wanted = evidence.base.checkpoint.companions if evidence.base else {}
        for scheme in evidence.schemes:
            have = scheme.checkpoint.companions
            places = [
                Location(
                    shard=name,
                    expected="as in the base",
                    actual="different" if name in have else "missing",
                )
                for name, digest in wanted.items()
                if have.get(name) != digest
            ]
            if places:
                names = ", ".join(sorted(place.shard or "" for place in places))
                yield self.finding(
                    [scheme],
                    f"missing or different from base's: {names}",
                    expected="the files of the base",
                    actual=f"{len(places)} missing or different",
                    locations=places,
                )
