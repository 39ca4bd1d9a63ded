"""CK201 missing-scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckptdiff.analysis.quantization import (
    expected_layout,
    layouts_of,
    module_algorithm,
    pattern_of,
)
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class MissingScale(Rule):
    """A quantized weight lacks a scale that its format needs.

    Codes without their scale are garbage that looks like weights: a loader that ignores the
    gap computes with numbers up to 448. Every quantized weight needs `weight_scale`, NVFP4
    `weight_scale_2` as well, formats with static activations `input_scale`. A
    `pre_quant_scale` is expected where every other layer has one in the same place.

    What to do: re-export the scheme; a scale cannot be guessed from its codes.
    """

    code = "CK201"
    name = "missing-scale"
    severity = "error"
    since = "0.1"
    needs = ("headers", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            # Behind an unreadable shard a scale is unknown and not missing.
            places = list(_missing(scheme)) if scheme.coverage.complete else []
            if places:
                count = len({place.module for place in places})
                quantized = len(scheme.coverage.quantized)
                yield self.finding(
                    [scheme],
                    f"{count} of {quantized} quantized modules lack a scale",
                    expected=f"{places[0].expected}",
                    actual="no such tensor",
                    locations=places,
                )


def _missing(scheme: SchemeEvidence) -> Iterator[Location]:
    smoothed = _smoothed(scheme)
    for key, layout in layouts_of(scheme).items():
        module = scheme.coverage.modules[key]
        scales = scheme.scales.get(module.name, {})
        needed = dict.fromkeys(layout.missing)
        expected = expected_layout(module_algorithm(scheme.quantization, module.name))
        if expected is not None and (not layout.names or expected[0] in layout.names):
            needed |= dict.fromkeys(expected[1])
        if key in smoothed:
            needed["pre_quant_scale"] = None
        for suffix in needed:
            if suffix not in scales:
                yield Location(
                    module=module.name,
                    tensor=f"{module.name}.{suffix}",
                    shard=module.shard,
                    expected=suffix,
                    actual="no such tensor",
                )


def _smoothed(scheme: SchemeEvidence) -> frozenset[str]:
    """Modules without a pre_quant_scale that has one in two or more, and in all, other
    quantized modules of the same place."""
    having: dict[str, list[bool]] = defaultdict(list)
    for key in scheme.coverage.quantized:
        name = scheme.coverage.modules[key].name
        having[pattern_of(key)].append("pre_quant_scale" in scheme.scales.get(name, {}))
    odd = {pattern for pattern, has in having.items() if has.count(False) == 1 and len(has) > 2}
    return frozenset(key for key in scheme.coverage.quantized if pattern_of(key) in odd)
