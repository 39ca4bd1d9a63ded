"""CK201 missing-scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckptdiff.analysis.quantization import (
    known_algorithm,
    lacking_scales,
    module_algorithm,
    promised_by_index,
)
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.layout import Suffix
from ckptdiff.rules.base import Rule


class MissingScale(Rule):
    """A quantized weight lacks a scale that its format needs.

    Codes without their scale are garbage that looks like weights: a loader that ignores the
    gap computes with numbers up to 448. Every quantized weight needs `weight_scale`, NVFP4
    `weight_scale_2` as well, formats with static activations `input_scale`. A
    `pre_quant_scale`, and the `k_scale` and `v_scale` of a KV cache, are expected where every
    other layer has one in the same place, and a `pre_quant_scale` of AWQ also wherever no layer
    stands in front that could have taken it: at o_proj and down_proj. Where no module has the
    scale that the algorithm in the config stands for, the config is wrong, which is CK401's.

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
                yield self.finding_at(
                    scheme,
                    f"{count} of {len(scheme.coverage.modules)} modules lack a scale",
                    places,
                )


def _missing(scheme: SchemeEvidence) -> Iterator[Location]:
    needed = [*_by_format(scheme), *lacking_scales(scheme)]
    for key, suffix in dict.fromkeys(needed):
        module = scheme.coverage.modules[key]
        tensor = f"{module.name}.{suffix}"
        if suffix not in scheme.scales.get(module.name, {}) and not promised_by_index(
            scheme, tensor
        ):
            yield Location(
                module=module.name,
                tensor=tensor,
                shard=module.shard,
                expected=suffix,
                actual="no such tensor",
            )


def _by_format(scheme: SchemeEvidence) -> Iterator[tuple[str, Suffix]]:
    """(module, scale) as the layout on disk, and the algorithm in the config, need them."""
    found: dict[str | None, set[Suffix]] = defaultdict(set)
    claimed = {}
    for key in sorted(scheme.coverage.quantized):
        name = scheme.coverage.modules[key].name
        claimed[key] = module_algorithm(scheme.quantization, name)
        found[claimed[key]].update(scheme.scales.get(name, {}))
    for key, layout in scheme.layouts.items():
        yield from ((key, suffix) for suffix in layout.missing)
        algorithm = known_algorithm(claimed[key])
        if algorithm is not None and (not layout.names or algorithm.layout in layout.names):
            yield from ((key, s) for s in algorithm.scales if s in found[claimed[key]])
