"""Any report as text for people. One module for each kind of report."""

from __future__ import annotations

from ckptdiff.records.finding import RuleInfo
from ckptdiff.records.report import (
    CheckReport,
    DoctorReport,
    HashReport,
    LayersReport,
    Report,
    ScanReport,
    VerifyReport,
)
from ckptdiff.report.text_check import check_text
from ckptdiff.report.text_doctor import doctor_text
from ckptdiff.report.text_hash import hash_text, verify_text
from ckptdiff.report.text_layers import layers_text
from ckptdiff.report.text_rule import rule_table_text, rule_text
from ckptdiff.report.text_scan import scan_text


def report_text(report: Report | tuple[RuleInfo, ...], *, color: bool = False) -> str:
    """`report` as text; a single rule gives its manual, several the table."""
    match report:
        case CheckReport():
            return check_text(report, color=color)
        case ScanReport():
            return scan_text(report, color=color)
        case LayersReport():
            return layers_text(report, color=color)
        case HashReport():
            return hash_text(report, color=color)
        case VerifyReport():
            return verify_text(report, color=color)
        case DoctorReport():
            return doctor_text(report, color=color)
        case (rule,):
            return rule_text(rule)
        case _:
            return rule_table_text(report)
