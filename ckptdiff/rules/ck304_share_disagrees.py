"""CK304 share-disagrees."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.formats.names import declared_share
from ckptdiff.records.checkpoint import CoverageManifest
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule

# Percentages are written by hand or rounded; two of them are the same within this.
_TOLERANCE = 0.5


class ShareDisagrees(Rule):
    """Name, `top_percent` and `coverage_fraction` of a scheme state different shares.

    The `topNN` token of the directory's name, or of the manifest's `scheme_name` where the
    directory has none, is compared with both fields. Which share is right is not decided
    here: the tensors are judged by the recipes that the manifest lists.

    What to do: rename the directory or correct the manifest, whichever is wrong.
    """

    code = "CK304"
    name = "share-disagrees"
    severity = "warning"
    since = "0.1"
    needs = ("manifest",)

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            manifest = scheme.checkpoint.coverage[0]
            shares = _shares(scheme.checkpoint.title, manifest)
            if len(shares) < 2 or max(shares.values()) - min(shares.values()) <= _TOLERANCE:
                continue
            spelled = ", ".join(f"{where} {share:g} %" for where, share in shares.items())
            yield self.finding(
                [scheme],
                f"the declared shares differ: {spelled}",
                expected="one share",
                actual=spelled,
                locations=[
                    Location(shard=manifest.name, actual=f"{where} {share:g} %")
                    for where, share in shares.items()
                ],
            )


def _shares(id: str, manifest: CoverageManifest) -> dict[str, float]:
    """Where a share is stated -> the share in percent."""
    named = declared_share(id) or declared_share(manifest.scheme_name or "")
    fraction = None if manifest.fraction is None else manifest.fraction * 100
    stated = {"name": named, "top_percent": manifest.top_percent, "coverage_fraction": fraction}
    return {where: share for where, share in stated.items() if share is not None}
