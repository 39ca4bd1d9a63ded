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
    _planned("CK207", "stale-weight", "error", "Codes are not what the base gives", _DEEP),
    _planned("CK208", "stale-scale", "error", "A scale is not what the base gives", _DEEP),
    _planned("CK209", "low-sqnr", "error", "A weight is too far from base's", _DEEP),
    _planned("CK210", "zero-tensor", "error", "A tensor is all zero and base's is not", _DEEP),
    _planned("CK211", "saturation", "warning", "Too many codes are at the extreme", _VALUES),
    _planned("CK212", "gain-error", "info", "An export on CUDA rounded the scale", _DEEP),
)
