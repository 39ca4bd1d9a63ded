"""Reports as bytes, and as an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ckptdiff.analysis.verdict import at_least
from ckptdiff.errors import UsageError
from ckptdiff.records.finding import RuleInfo
from ckptdiff.records.report import CheckReport, ScanReport
from ckptdiff.records.settings import FailOn

Format = Literal["text", "json", "markdown"]

if TYPE_CHECKING:
    # Only for signatures: most runs need one of them, and making classes takes time.
    from ckptdiff.records.doctor import DoctorReport
    from ckptdiff.records.hashes import HashReport, VerifyReport
    from ckptdiff.records.layers import LayersReport

    Report = CheckReport | ScanReport | LayersReport | HashReport | VerifyReport | DoctorReport


def render(
    report: Report | tuple[RuleInfo, ...],
    format: Format = "text",
    *,
    color: bool = False,
) -> bytes:
    """A report as it is printed or written to a file; text is UTF-8.

    `color` adds terminal colours to text. Raises `UsageError` for a format that the report
    does not have.
    """
    if format == "json":
        from ckptdiff.report.json import to_json

        return to_json(report)
    if format == "markdown" and isinstance(report, CheckReport):
        from ckptdiff.report.markdown import check_markdown

        return check_markdown(report).encode("utf-8", "backslashreplace")
    if format == "text":
        from ckptdiff.report.text import report_text

        return report_text(report, color=color).encode("utf-8", "backslashreplace")
    raise UsageError(
        f"this report has no format {format!r}", "Formats are text and json; check has markdown."
    )


def exit_code(report: Report, fail_on: FailOn = "error") -> int:
    """1 for a finding at or above `fail_on` or a lock that does not hold, else 2 for anything
    unread, else 0."""
    findings = report.findings if isinstance(report, CheckReport) else ()
    if fail_on != "never" and any(at_least(f.severity, fail_on) for f in findings):
        return 1
    unread = bool(getattr(report, "unread", ()))
    if getattr(report, "differences", ()) or not (getattr(report, "same", True) or unread):
        return 1
    return 2 if unread else 0
