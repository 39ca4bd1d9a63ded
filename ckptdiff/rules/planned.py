"""Codes that are taken by rules still to come, so that nobody gives them another meaning."""

from __future__ import annotations

from ckptdiff.records.finding import Fix, Need, RuleInfo, Severity


def _planned(
    code: str,
    name: str,
    severity: Severity,
    summary: str,
    needs: tuple[Need, ...] = ("headers",),
    fix: Fix = "none",
) -> RuleInfo:
    return RuleInfo(code, name, severity, "planned", needs, fix, summary)


_VALUES: tuple[Need, ...] = ("values",)
_BASE: tuple[Need, ...] = ("hashes", "base")
_DEEP: tuple[Need, ...] = ("values", "base")

PLANNED: tuple[RuleInfo, ...] = (
    _planned("CK109", "tensor-in-two-shards", "error", "One tensor name is in two shards"),
    _planned("CK110", "tensor-not-indexed", "warning", "A tensor is not named by the index"),
    _planned("CK111", "total-size", "warning", "The index states another total size"),
    _planned("CK112", "stray-shard", "warning", "A shard is read by no loader"),
    _planned("CK201", "missing-scale", "error", "A quantized weight has no scale"),
    _planned("CK202", "orphan-scale", "error", "A scale belongs to no quantized weight"),
    _planned("CK203", "bad-scale", "error", "A scale is zero, negative or not finite", _VALUES),
    _planned("CK204", "scale-layout", "error", "A scale has the wrong shape or dtype"),
    _planned("CK205", "non-finite-weight", "error", "A weight is NaN or infinite", _VALUES),
    _planned("CK206", "partial-group", "warning", "Part of a fused group is quantized"),
    _planned("CK207", "stale-weight", "error", "Codes are not what the base gives", _DEEP),
    _planned("CK208", "stale-scale", "error", "A scale is not what the base gives", _DEEP),
    _planned("CK209", "low-sqnr", "error", "A weight is too far from base's", _DEEP),
    _planned("CK210", "zero-tensor", "error", "A tensor is all zero and base's is not", _DEEP),
    _planned("CK211", "saturation", "warning", "Too many codes are at the extreme", _VALUES),
    _planned("CK212", "gain-error", "info", "An export on CUDA rounded the scale", _DEEP),
    _planned("CK308", "baselines-differ", "warning", "Baseline manifests of a family differ"),
    _planned("CK309", "two-manifests", "warning", "A scheme has two coverage manifests"),
    _planned("CK401", "quant-config", "error", "hf_quant_config.json against the tensors"),
    _planned("CK402", "config-differs", "error", "config.json against hf_quant_config.json"),
    _planned("CK403", "ambiguous-exclude", "error", "An excluded prefix is a substring of others"),
    _planned("CK404", "tied-lm-head", "error", "Tied embeddings with a quantized lm_head"),
    _planned("CK405", "split-exclude", "error", "Part of a fused group is excluded"),
    _planned("CK406", "scales-dropped", "info", "Plain transformers would drop the scales"),
    _planned("CK407", "tokenizer", "info", "Tokenizer files are missing or not base's"),
    _planned("CK601", "differs-from-base", "error", "An unquantized tensor is not base's", _BASE),
    _planned("CK602", "missing-against-base", "error", "Base has a tensor that is not here", _BASE),
    _planned("CK603", "extra-against-base", "error", "A tensor that base has not", _BASE),
    _planned("CK604", "shape-against-base", "error", "A tensor has another shape", _BASE),
    _planned("CK605", "other-dtype", "info", "Values equal base's in another dtype", _BASE),
)
