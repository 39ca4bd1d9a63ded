"""CK307 no-manifest."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.formats.manifests import MANIFEST_DIR
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding
from ckptdiff.rules.base import Rule


class NoManifest(Rule):
    """A scheme has no manifest, so what it should quantize is not known.

    Its tensors are counted and hashed all the same, but nothing says whether they are the
    right ones: a copy under a wrong name passes. `--require manifest` makes that exit 2.

    What to do: keep `layer-sensitivity/*_coverage_from_baseline.json` beside the weights.
    """

    code = "CK307"
    name = "no-manifest"
    severity = "info"
    since = "0.1"
    needs = ()

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            checkpoint = scheme.checkpoint
            if not checkpoint.coverage and not checkpoint.baselines and checkpoint.shards:
                if any("manifest" in name or "coverage" in name for name in checkpoint.documents):
                    continue  # it has one that cannot be read, which is reported as that
                if any(item.path in (".", MANIFEST_DIR) for item in checkpoint.unread):
                    continue  # nobody knows whether it has one
                yield self.finding(
                    [scheme],
                    "no manifest says which layers should be quantized",
                    expected="a coverage or baseline manifest",
                    actual="none",
                )
