"""Any report as text for people. One module for each kind of report, imported on use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

# class of the report -> (module, function); a tuple is one rule or the table of them.
_RENDERERS = {
    "CheckReport": ("text_check", "check_text"),
    "ScanReport": ("text_scan", "scan_text"),
    "LayersReport": ("text_layers", "layers_text"),
    "DiffReport": ("text_diff", "diff_text"),
    "HashReport": ("text_hash", "hash_text"),
    "VerifyReport": ("text_hash", "verify_text"),
    "DoctorReport": ("text_doctor", "doctor_text"),
    "ProbeReport": ("text_probe", "probe_text"),
    "PlanReport": ("text_plan", "plan_text"),
    "tuple": ("text_rule", "rules_text"),
}


def report_text(report: object, *, color: bool = False) -> str:
    """`report` as text. Raises `KeyError` for anything that is no report."""
    module, function = _RENDERERS[type(report).__name__]
    render: Callable[..., str] = getattr(import_module(f"ckptdiff.report.{module}"), function)
    return render(report, color=color)
