"""CK501 identical-weights."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class IdenticalWeights(Rule):
    """Schemes that declare different sets of layers carry one set of weights.

    This is the fault that ckptdiff was made for: a checkpoint copied under several names
    with only the manifests changed. Whatever is measured on such schemes is one number
    under several labels. Fingerprints cover every tensor's name, dtype, shape and bytes,
    and do not depend on how the tensors are spread over files.

    Percentages are not compared: top90 and top100 may select the same modules when the
    last recipe is one that an export never packs. The baseline of a search counts as
    declaring what it holds. The member whose tensors follow its own manifest is the
    reference and stays safe to use.

    What to do: re-export every other member from the base with its own selection.
    """

    code = "CK501"
    name = "identical-weights"
    severity = "error"
    since = "0.1"
    needs = ("hashes",)
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        schemes = {scheme.id: scheme for scheme in evidence.schemes}
        for group in evidence.identity:
            if not group.conflicting:
                continue
            count = len(group.schemes)
            reference = schemes[group.reference]
            kept = reference.coverage.agrees or reference.is_baseline
            who = f"only {reference.id} is what it says" if kept else "none is what it says"
            yield self.finding(
                group.schemes,
                f"{count} schemes carry the same weights and declare different layers; {who}",
                expected="different weights",
                actual=f"one set, {group.fingerprint}",
                locations=[Location(shard=shard.name) for shard in reference.checkpoint.shards],
            )
