"""`check` as Markdown, for job summaries and pull requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckptdiff.records.finding import Finding
from ckptdiff.records.report import CheckReport, SchemeRow
from ckptdiff.records.wording import plural
from ckptdiff.report.escape import printable
from ckptdiff.report.findings import merged_infos, place_of
from ckptdiff.report.lines import SHOWN
from ckptdiff.report.style import human_bytes

# Everything that begins markup of any kind, HTML included: strangers choose these names.
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~&@$:-])")


def check_markdown(report: CheckReport) -> str:
    """A `CheckReport` as GitHub-flavoured Markdown, the verdict first."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: CheckReport) -> Iterator[str]:
    verdict = report.verdict
    word = "FAIL" if verdict.status == "fail" else "PASS" if verdict.complete else "NOT COMPLETE"
    yield f"## ckptdiff: {word}"
    yield ""
    yield f"{text(verdict.sentence)}."
    yield ""
    if report.schemes:
        yield "| scheme | declared | quantized | size | identity | status |"
        yield "| --- | ---: | ---: | ---: | --- | --- |"
        yield from map(_row, report.schemes)
        yield ""
    yield f"Safe to use: {', '.join(map(text, verdict.safe)) or 'none'}."
    for finding in merged_infos(report.findings):
        yield ""
        yield from _finding(finding)
    if report.unread:
        yield ""
        yield "### Not read"
        yield ""
        yield from (f"- {text(item.path)}: {text(item.reason)}" for item in report.unread)
    if report.ignored:
        yield ""
        yield "### Ignored"
        yield ""
        for item in report.ignored:
            schemes = ", ".join(map(text, item.schemes))
            yield f"- {item.code} {item.name} in {schemes}: {text(item.reason)}"
    counts = report.counts
    yield ""
    yield (
        f"{plural(counts.schemes, 'scheme')}: {plural(counts.errors, 'error')}, "
        f"{plural(counts.warnings, 'warning')}, {counts.infos} info, {counts.unread} unread."
    )


def _row(row: SchemeRow) -> str:
    declared, actual = row.declared, row.actual
    percent = "" if declared is None or declared.percent is None else f" ({declared.percent:g} %)"
    claim = (
        "-"
        if declared is None or declared.selected is None
        else (f"{declared.selected}/{declared.total}")
    )
    held = "-" if actual is None else f"{actual.quantized}/{actual.total}"
    cells = (text(row.id), claim + percent, held, human_bytes(row.bytes), row.identity or "-")
    return f"| {' | '.join(cells)} | {row.status} |"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"### {finding.severity}: {finding.code} {finding.name}"
    yield ""
    yield f"{text(finding.message)}: {', '.join(map(text, finding.schemes))}."
    if finding.locations:
        yield ""
        yield from (f"- {text(place_of(place))}" for place in finding.locations[:SHOWN])
        if len(finding.locations) > SHOWN:
            yield f"- … {len(finding.locations) - SHOWN:,} more"
    yield ""
    yield f"Next: `{printable(finding.next_step)}`"


def text(name: str) -> str:
    return _MARKUP.sub(r"\\\1", printable(name))
