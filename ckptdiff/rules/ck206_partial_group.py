"""CK206 partial-group."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import follows_config, fused_groups, has_orphans
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class PartialGroup(Rule):
    """Only part of a group that is served as one is quantized, and no manifest says why.

    q, k and v, and gate and up, are one matrix in a serving engine, which refuses a mixture.
    With a manifest CK301 and CK302 say which member is wrong; a config or scales that
    contradict a member's weight are CK401's and CK202's.

    What to do: re-export with whole groups.
    """

    code = "CK206"
    name = "partial-group"
    severity = "warning"
    since = "0.1"
    needs = ("headers", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            if scheme.has_manifest or not scheme.coverage.complete:
                continue
            modules = scheme.coverage.modules
            mixed = [
                group
                for group in fused_groups(modules)
                if len({modules[key].quantized for key in group}) > 1
                and all(follows_config(scheme, modules[key]) for key in group)
                and not any(has_orphans(scheme, modules[key]) for key in group)
            ]
            if mixed:
                yield self.finding(
                    [scheme],
                    f"{plural(len(mixed), 'fused group')} quantized in part",
                    expected="whole groups",
                    actual=", ".join(modules[key].dtype for key in mixed[0]),
                    locations=[
                        Location(
                            module=modules[key].name,
                            tensor=modules[key].weight,
                            shard=modules[key].shard,
                            actual=modules[key].dtype,
                        )
                        for group in mixed
                        for key in group
                    ],
                )
