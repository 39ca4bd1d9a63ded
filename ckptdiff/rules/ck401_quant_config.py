"""CK401 quant-config."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import (
    WEIGHT_SCALES,
    claimed_algorithm,
    has_orphans,
    is_tied_head,
    known_algorithm,
    module_group_size,
    reshaped,
    scales_of_algorithms,
)
from ckptdiff.records.checkpoint import QuantConfig
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.layout import Layout, Suffix
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class QuantConfigDisagrees(Rule):
    """The quantization config says something else than the tensors.

    A loader builds its layers from the config: a quantized module that the config excludes is
    loaded as codes without scales, an unquantized one that it does not exclude fails or is
    quantized again, and another algorithm or group size reads the same bytes as other
    numbers. Judged is hf_quant_config.json, or config.json where that is missing. Modules
    that already disagree with the coverage manifest are CK301's and CK302's, those with
    scales beside an unquantized weight CK202's; where the two configs differ, CK402 says so.

    What to do: take configs and weights from the same export.
    """

    code = "CK401"
    name = "quant-config"
    severity = "error"
    since = "0.1"
    needs = ("headers", "modelopt")
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            config = scheme.quantization
            if config is None and scheme.coverage.quantized:
                yield self._no_config(scheme)
            if config is None or config.algorithm is None:
                continue
            model = scheme.checkpoint.config
            other = model.quantization if model and model.quantization else config
            places = [*_modules(scheme, config, other, reshaped(evidence, scheme))]
            if config.kv_cache_algorithm == other.kv_cache_algorithm:
                places += _kv_cache(scheme, config)
            if places:
                yield self.finding_at(
                    scheme,
                    f"{config.source} disagrees with the tensors in {plural(len(places), 'place')}",
                    places,
                )

    def _no_config(self, scheme: SchemeEvidence) -> Finding:
        count = len(scheme.coverage.quantized)
        return self.finding(
            [scheme],
            f"{count} modules are quantized, and no config says so: codes would pass for weights",
            expected="hf_quant_config.json, or a quantization_config in config.json",
            actual="neither",
            locations=[Location(shard="config.json", expected="a quantization_config")],
        )


def _modules(
    scheme: SchemeEvidence, config: QuantConfig, other: QuantConfig, wrong_shape: frozenset[str]
) -> Iterator[Location]:
    coverage = scheme.coverage
    layouts = scheme.layouts
    present = scales_of_algorithms(scheme, config)
    told = coverage.not_quantized | coverage.not_selected
    same = config.exclude == other.exclude and config.layers == other.layers
    same = same and config.algorithm == other.algorithm
    for key, module in coverage.modules.items():
        if key in told or module.weight in wrong_shape or is_tied_head(scheme, module):
            continue
        claimed = claimed_algorithm(config, module.name)
        if not same and claimed != claimed_algorithm(other, module.name):
            continue
        if has_orphans(scheme, module):
            continue
        differs = None
        takeable = key in coverage.scope or key == "lm_head"
        if not module.quantized and claimed is not None and takeable:
            differs = claimed, module.dtype
        elif module.quantized and claimed is None:
            differs = "unquantized", module.dtype
        elif module.quantized and claimed is not None and key in layouts:
            if not layouts[key].names or layouts[key].missing:
                continue  # of a kind that is unknown here, or another rule's
            differs = _layout(scheme, module, layouts[key], claimed, present[claimed])
            size, others = (module_group_size(c, module.name) for c in (config, other))
            if differs is None and others in (None, size):
                differs = _groups(scheme, module, size)
        if differs is not None:
            yield Location(
                module=module.name,
                tensor=module.weight,
                shard=module.shard,
                expected=differs[0],
                actual=differs[1],
            )


def _layout(
    scheme: SchemeEvidence, module: Module, layout: Layout, claimed: str, present: set[Suffix]
) -> tuple[str, str] | None:
    """What the algorithm stands for and what there is instead, None when they agree."""
    algorithm = known_algorithm(claimed)
    if algorithm is None:
        return None
    if algorithm.layout not in layout.names:
        return f"{claimed} ({algorithm.layout})", " or ".join(layout.names)
    # A scale that one module alone lacks is CK201's.
    for suffix in algorithm.scales:
        if suffix not in present:
            return f"{claimed} with {suffix}", f"no {suffix} in any module"
    known = ("weight_scale", *algorithm.scales, *algorithm.optional)
    for suffix in scheme.scales.get(module.name, {}):
        if suffix in WEIGHT_SCALES and suffix not in known:
            return f"{claimed} without {suffix}", suffix
    return None


def _groups(scheme: SchemeEvidence, module: Module, size: int | None) -> tuple[str, str] | None:
    """Groups a row as the config has them and as the scale has, None when they agree."""
    scale = scheme.scales.get(module.name, {}).get("weight_scale")
    if not size or scale is None or len(scale.tensor.shape) != 2 or 0 in scale.tensor.shape:
        return None
    rows, groups = scale.tensor.shape
    columns = module.elements // rows
    if groups == -(-columns // size):
        return None
    return f"groups of {size}", f"groups of {-(-columns // groups)}"


def _kv_cache(scheme: SchemeEvidence, config: QuantConfig) -> Iterator[Location]:
    scales = [
        scale
        for found in scheme.scales.values()
        for suffix, scale in found.items()
        if suffix in ("k_scale", "v_scale")
    ]
    if config.kv_cache_algorithm == "FP8" and not scales and scheme.coverage.complete:
        yield Location(
            shard=config.source, expected="k_scale and v_scale (FP8 KV cache)", actual="none"
        )
    if config.kv_cache_algorithm is None:
        for scale in scales:
            yield Location(
                module=scale.module,
                tensor=scale.name,
                shard=scale.shard,
                expected="no scales of a KV cache",
                actual=scale.suffix,
            )
