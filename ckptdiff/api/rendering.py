"""Reports as bytes, and as an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ckptdiff.analysis.verdict import at_least
from ckptdiff.errors import UsageError
from ckptdiff.records.finding import RuleInfo
from ckptdiff.records.report import CheckReport, ScanReport
from ckptdiff.records.settings import FailOn

Format = Literal["text", "json", "markdown", "svg"]

_OF_DIFF = {"same": 0, "different": 1, "incomplete": 2, "not comparable": 2}

if TYPE_CHECKING:
    # Only for signatures: most runs need one of them, and making classes takes time.
    from ckptdiff.records.delta import DiffReport
    from ckptdiff.records.doctor import DoctorReport
    from ckptdiff.records.hashes import HashReport, VerifyReport
    from ckptdiff.records.layers import LayersReport
    from ckptdiff.records.plan import PlanReport
    from ckptdiff.records.probe import ProbeReport

    Report = (
        CheckReport
        | DiffReport
        | DoctorReport
        | HashReport
        | LayersReport
        | PlanReport
        | ProbeReport
        | ScanReport
        | VerifyReport
    )


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
    if format in ("markdown", "svg") and type(report).__name__ == "ProbeReport":
        return _probe(report, format)  # type: ignore[arg-type]
    if format == "text":
        from ckptdiff.report.text import report_text

        return report_text(report, color=color).encode("utf-8", "backslashreplace")
    raise UsageError(
        f"this report has no format {format!r}", "Formats are text and json; check has markdown."
    )


def _probe(report: ProbeReport, format: Literal["markdown", "svg"]) -> bytes:
    if format == "svg":
        from ckptdiff.report.svg_curve import probe_svg

        return probe_svg(report).encode("utf-8", "backslashreplace")
    from ckptdiff.report.markdown_probe import probe_markdown

    return probe_markdown(report).encode("utf-8", "backslashreplace")


def exit_code(report: Report, fail_on: FailOn = "error") -> int:
    """1 for a finding at or above `fail_on`, a lock that does not hold or a difference, else
    2 for anything unread, else 0."""
    compared = getattr(report, "verdict", None)
    if isinstance(compared, str) and compared in _OF_DIFF:
        return _OF_DIFF[compared]
    findings = report.findings if isinstance(report, CheckReport) else ()
    if fail_on != "never" and any(at_least(f.severity, fail_on) for f in findings):
        return 1
    unread = bool(getattr(report, "unread", ()))
    if getattr(report, "differences", ()) or not (getattr(report, "same", True) or unread):
        return 1
    if getattr(report, "failed", False):
        outcomes = getattr(report, "outcomes", ())
        return max(2, *(int(outcome.exit_code) for outcome in outcomes), 2)
    return 2 if unread else 0
