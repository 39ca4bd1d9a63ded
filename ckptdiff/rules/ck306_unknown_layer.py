"""CK306 unknown-layer."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.formats.names import module_key
from ckptdiff.records.checkpoint import BaselineManifest
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class UnknownLayer(Rule):
    """The coverage manifest names a recipe that matches no module of the checkpoint.

    Names are compared without the prefixes that differ between disk, live model and
    manifest. A tied `lm_head` is never reported: rankings list it, disks do not have it. A
    recipe that the baseline's ranking does not have either is CK303's.

    What to do: the manifest was most likely written for another model; take the one that
    belongs to this checkpoint.
    """

    code = "CK306"
    name = "unknown-layer"
    severity = "error"
    since = "0.1"
    needs = ("headers", "manifest")

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            base = evidence.base_of(scheme)
            modules = base.coverage.modules if base else {}
            declared = scheme.coverage.declared
            if declared is None:
                continue
            # A module that base has was lost from the scheme, which is CK602's to say.
            unknown = [
                name
                for name in declared.unknown
                if module_key(name) not in modules and _is_ranked(name, scheme.baseline)
            ]
            if not unknown:
                continue
            count = len(unknown)
            yield self.finding(
                [scheme],
                f"{count} of {declared.recipes_total} recipes match no module of the checkpoint",
                expected=f"{declared.recipes_total} recipes that name modules",
                actual=f"{count} that do not",
                locations=[
                    Location(
                        module=name,
                        shard=declared.manifest,
                        expected="a module of the checkpoint",
                        actual="no such module",
                    )
                    for name in unknown
                ],
            )


def _is_ranked(recipe: str, baseline: BaselineManifest | None) -> bool:
    """Whether the baseline ranks the recipe, for all that is known."""
    if baseline is None:
        return True
    ranked = (*baseline.ranking, *baseline.recipes)
    return module_key(recipe) in map(module_key, ranked)
