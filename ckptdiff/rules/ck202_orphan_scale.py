"""CK202 orphan-scale."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import WEIGHT_SCALES, promised_by_index
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class OrphanScale(Rule):
    """A scale belongs to a module whose weight is unquantized or not there.

    Somebody put a full-precision weight back and left the scale, or dropped the weight. A
    loader may apply the scale to a weight that it does not belong to. `k_scale` and
    `v_scale` belong to the KV cache and stay on unquantized projections. Where a manifest
    selects the module, CK301 says that it is unquantized.

    What to do: re-export the scheme.
    """

    code = "CK202"
    name = "orphan-scale"
    severity = "error"
    since = "0.1"
    needs = ("headers", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            base = evidence.base_of(scheme)
            places = list(_orphans(scheme, base)) if scheme.coverage.complete else []
            if places:
                yield self.finding_at(
                    scheme, f"{plural(len(places), 'scale')} without a quantized weight", places
                )


def _orphans(scheme: SchemeEvidence, base: SchemeEvidence | None) -> Iterator[Location]:
    modules = {module.name: module for module in scheme.coverage.modules.values()}
    selected = scheme.coverage.not_quantized
    in_base = {module.name for module in base.coverage.modules.values()} if base else set()
    for name, scales in scheme.scales.items():
        module = modules.get(name)
        if module is not None and (module.quantized or module.key in selected):
            continue
        # An absent weight is CK602's when base has it, CK104's when the index names it.
        if module is None and (name in in_base or promised_by_index(scheme, f"{name}.weight")):
            continue
        for suffix, scale in scales.items():
            if suffix in WEIGHT_SCALES:
                yield Location(
                    module=name,
                    tensor=scale.name,
                    shard=scale.shard,
                    expected="a quantized weight",
                    actual=f"{module.dtype} weight" if module else "no weight",
                )
