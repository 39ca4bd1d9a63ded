"""CK203 bad-scale."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.records.digests import Flaws
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class BadScale(Rule):
    """A scale is zero, negative, NaN or infinite.

    Every weight under it becomes zero, flips its sign, or is lost. ModelOpt itself exports a
    scale of 0 and NaN codes for a weight that is all zero. A block scale of MXFP8 or MXFP4 is
    an exponent, of which only 255 stands for NaN: byte 0 is 2^-127.

    What to do: re-export the scheme; look at the base's weight if it happens again.
    """

    code = "CK203"
    name = "bad-scale"
    severity = "error"
    since = "0.1"
    needs = ("headers", "values")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            shards = {name: shard.name for name, _, shard in scheme.checkpoint.items()}
            places = []
            for name, flaws in scheme.flaws.items():
                if split := scale_suffix(name):
                    places.append(
                        Location(
                            module=split[0],
                            tensor=name,
                            shard=shards[name],
                            expected="finite and above zero",
                            actual=_spell(flaws),
                        )
                    )
            if places:
                yield self.finding_at(
                    scheme,
                    f"{plural(len(places), 'scale')} with values that no scale can have",
                    places,
                )


def _spell(flaws: Flaws) -> str:
    parts = []
    if flaws.nonfinite:
        parts.append(f"{flaws.nonfinite} NaN or infinite, first at {flaws.nonfinite_at}")
    if flaws.nonpositive:
        parts.append(f"{flaws.nonpositive} zero or negative, first at {flaws.nonpositive_at}")
    return "; ".join(parts)
