"""CK401 quant-config."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.analysis.quantization import (
    expected_layout,
    is_excluded,
    is_tied_head,
    layouts_of,
    module_algorithm,
)
from ckptdiff.formats.layouts import MIXED
from ckptdiff.records.checkpoint import QuantConfig
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.rules.base import Rule


class QuantConfigDisagrees(Rule):
    """The quantization config says something else than the tensors.

    A loader builds its layers from the config: a quantized module that the config excludes is
    loaded as codes without scales, an unquantized one that it does not exclude fails or is
    quantized again, and another algorithm or group size reads the same bytes as other
    numbers. Judged is hf_quant_config.json, or config.json where that is missing. Modules
    that already disagree with the coverage manifest are CK301's and CK302's.

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
            if config is None or config.algorithm is None:
                continue
            places = [*_modules(scheme, config), *_kv_cache(scheme, config)]
            if places:
                first = places[0]
                yield self.finding(
                    [scheme],
                    f"{config.source} disagrees with the tensors in {len(places)} places",
                    expected=first.expected,
                    actual=first.actual,
                    locations=places,
                )


def _modules(scheme: SchemeEvidence, config: QuantConfig) -> Iterator[Location]:
    coverage = scheme.coverage
    layouts = layouts_of(scheme)
    for key, module in coverage.modules.items():
        if key in coverage.not_quantized | coverage.not_selected or is_tied_head(scheme, module):
            continue
        claimed = _claimed(config, module.name)
        if module.quantized and claimed is None:
            expected, actual = "unquantized", module.dtype
        elif module.quantized:
            layout = layouts.get(key)
            wanted = expected_layout(claimed)
            if layout is None or wanted is None or not layout.names or layout.missing:
                continue  # unknown here, or another rule's
            if wanted[0] in layout.names:
                size = _group_size(scheme, key)
                if not config.group_size or size in (None, config.group_size):
                    continue
                expected, actual = f"groups of {config.group_size}", f"groups of {size}"
            else:
                expected, actual = f"{claimed} ({wanted[0]})", " or ".join(layout.names)
        elif claimed is not None and key in coverage.scope:
            expected, actual = claimed, module.dtype
        else:
            continue
        yield Location(
            module=module.name,
            tensor=module.weight,
            shard=module.shard,
            expected=expected,
            actual=actual,
        )


def _claimed(config: QuantConfig, module: str) -> str | None:
    """The algorithm that the config promises for a module, None when it leaves it out."""
    if (config.algorithm or "").upper() == MIXED:
        return module_algorithm(config, module)
    return None if is_excluded(config, module) else config.algorithm


def _group_size(scheme: SchemeEvidence, key: str) -> int | None:
    """Columns of the weight for each column of its scale, None for other layouts."""
    module = scheme.coverage.modules[key]
    scale = scheme.scales.get(module.name, {}).get("weight_scale")
    if scale is None or len(scale.tensor.shape) != 2 or 0 in scale.tensor.shape:
        return None
    rows, columns = scale.tensor.shape
    return module.elements // rows // columns if columns > 1 else None


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
