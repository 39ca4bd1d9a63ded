"""CK405 split-exclude."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import follows_config, fused_groups, is_excluded
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class SplitExclude(Rule):
    """The config excludes part of a group that a serving engine loads as one.

    Tensors, manifest and config agree, so this is what somebody asked for; vLLM refuses it
    all the same, because q, k and v, and gate and up, are one matrix there.

    What to do: select or drop whole groups, and export again.
    """

    code = "CK405"
    name = "split-exclude"
    severity = "error"
    since = "0.1"
    needs = ("headers", "manifest", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            split = list(_split(scheme))
            if split:
                modules = scheme.coverage.modules
                yield self.finding(
                    [scheme],
                    f"{plural(len(split), 'fused group')} excluded in part",
                    expected="whole groups",
                    actual=", ".join(sorted(modules[key].name for key in split[0])),
                    locations=[
                        Location(
                            module=modules[key].name,
                            expected="as the rest of its group",
                            actual="quantized" if modules[key].quantized else "excluded",
                        )
                        for group in split
                        for key in group
                    ],
                )


def _split(scheme: SchemeEvidence) -> Iterator[tuple[str, ...]]:
    config, coverage = scheme.quantization, scheme.coverage
    if config is None or not config.exclude:
        return
    wrong = coverage.not_quantized | coverage.not_selected
    for group in fused_groups(coverage.modules):
        members = [coverage.modules[key] for key in group]
        excluded = {is_excluded(config, module.name) for module in members}
        if len(excluded) < 2 or wrong & set(group):
            continue
        # Where tensors and config or manifest differ, other rules say so.
        if all(follows_config(scheme, module) for module in members):
            yield group
