"""CK205 non-finite-weight."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class NonFiniteWeight(Rule):
    """A tensor that is no scale holds NaN or infinities.

    One of them is enough to make every logit NaN. In FP8 E4M3 there are no infinities: the
    codes 0x7F and 0xFF are NaN.

    What to do: re-export the scheme; if the base has them too, its training went wrong.
    """

    code = "CK205"
    name = "non-finite-weight"
    severity = "error"
    since = "0.1"
    needs = ("headers", "values")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            shards = {name: shard.name for name, _, shard in scheme.checkpoint.items()}
            places = [
                Location(
                    tensor=name,
                    shard=shards[name],
                    expected="finite values",
                    actual=f"{flaws.nonfinite} NaN or infinite, first at {flaws.nonfinite_at}",
                )
                for name, flaws in scheme.flaws.items()
                if flaws.nonfinite and not scale_suffix(name)
            ]
            if places:
                yield self.finding_at(
                    scheme, f"NaN or infinities in {plural(len(places), 'tensor')}", places
                )
