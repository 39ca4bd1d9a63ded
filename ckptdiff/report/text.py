"""The report that a person reads: verdict, evidence, next step, in 80 columns."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ckptdiff.records.finding import Finding, Location, RuleInfo, Skip
from ckptdiff.records.report import CheckReport, ScanReport
from ckptdiff.records.sweep import PassedOver
from ckptdiff.report.escape import printable, width
from ckptdiff.report.style import human_bytes, paint, plural
from ckptdiff.report.table import scheme_table

COLUMNS = 80
# A finding shows this many places; the count and the JSON have the rest.
SHOWN = 5
# A name may be as long as a file. No scheme and no tensor that anybody named is, and wrapping
# takes time by the square of a word's length.
_LONG_WORD = re.compile(r"\S{400,}")
_LONGEST = 20_000


def report_text(
    report: CheckReport | ScanReport | tuple[RuleInfo, ...], *, color: bool = False
) -> str:
    """Any report as text; a single rule gives its manual, several the table."""
    match report:
        case CheckReport():
            return check_text(report, color=color)
        case ScanReport():
            return scan_text(report, color=color)
        case (rule,):
            return rule_text(rule)
        case _:
            return rule_table_text(report)


def check_text(report: CheckReport, *, color: bool = False) -> str:
    """A `CheckReport` as text, one verdict sentence first."""
    return "\n".join(_check_lines(report, color)) + "\n"


def scan_text(report: ScanReport, *, color: bool = False) -> str:
    """A `ScanReport` as text: the inventory."""
    total = sum(row.bytes for row in report.schemes)
    lines = [f"{plural(len(report.schemes), 'scheme')}, {human_bytes(total)} of tensors", ""]
    lines += scheme_table(report.schemes, columns=COLUMNS, color=color, judged=False)
    lines += ["", *_base_line(report)]
    for row in report.schemes:
        dtypes = ", ".join(f"{dtype} {human_bytes(n)}" for dtype, n in row.dtypes.items())
        bits = row.actual.effective_bits if row.actual else None
        detail = f"{plural(row.tensors, 'tensor')}: {dtypes or 'none'}"
        detail += "" if bits is None else f"; {bits:.2f} bits a weight"
        detail += f"; {row.producer}" if row.producer else ""
        lines += ["", *_wrap(row.id, ""), *_wrap(detail, "  ")]
    lines += _unread(report, color)
    lines += _passed_over(report.passed_over)
    return "\n".join(lines) + "\n"


def rule_table_text(rules: Sequence[RuleInfo]) -> str:
    """The rule table, one line a rule."""
    return "".join(
        f"{rule.code}  {rule.severity:<8} {rule.name:<24} {rule.summary}"
        + (" (planned)\n" if rule.since == "planned" else "\n")
        for rule in rules
    )


def rule_text(rule: RuleInfo) -> str:
    """The manual of one rule."""
    needs = ", ".join(rule.needs) or "nothing but the directory"
    head = f"{rule.code} {rule.name} ({rule.severity})\n\n"
    tail = f"\n\nNeeds: {needs}. Since: {rule.since}. Fix: {rule.fix}.\n"
    return head + (rule.manual or f"{rule.summary}. Planned; this version does not look.") + tail


def _check_lines(report: CheckReport, color: bool) -> Iterator[str]:
    failed = report.verdict.status == "fail"
    word = "FAIL" if failed else "PASS" if report.verdict.complete else "NOT COMPLETE"
    style = "error" if failed else "ok" if report.verdict.complete else "warning"
    sentence = _wrap(f"{word}: {report.verdict.sentence}", "")
    sentence[0] = paint(word, style, color) + sentence[0].removeprefix(word)
    yield from sentence
    yield ""
    yield from scheme_table(report.schemes, columns=COLUMNS, color=color, judged=True)
    yield ""
    yield from _base_line(report)
    if report.config:
        yield from _wrap(f"settings: {report.config}", "")
    yield from _wrap(f"safe to use: {', '.join(report.verdict.safe) or 'none'}", "", "  ")
    for finding in _merged(report.findings):
        yield ""
        yield from _finding(finding, color)
    yield from _unread(report, color)
    if report.ignored:
        yield ""
        yield paint("ignored", "bold", color)
        for item in report.ignored:
            what = f"{item.code} {item.name} in {', '.join(item.schemes)}: {item.reason}"
            yield from _wrap(what, "  ", "    ")
    yield from _skipped(report.skipped)
    yield from _passed_over(report.passed_over)
    yield ""
    counts = report.counts
    yield (
        f"{plural(counts.schemes, 'scheme')}: {plural(counts.errors, 'error')}, "
        f"{plural(counts.warnings, 'warning')}, {counts.infos} info, {counts.unread} unread"
    )


def _base_line(report: CheckReport | ScanReport) -> Iterator[str]:
    if report.base is not None:
        yield from _wrap(f"base: {report.base.id} (found by {report.base.found_by})", "", "  ")
    elif isinstance(report, ScanReport):
        yield "base: none found"


def _merged(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Infos that say the same of several schemes as one; the JSON has them one by one."""
    merged: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = (finding.code, finding.message)
        if finding.severity != "info":
            yield finding
        elif key in merged:
            merged[key] = replace(merged[key], schemes=merged[key].schemes + finding.schemes)
        else:
            merged[key] = finding
    yield from merged.values()


def _finding(finding: Finding, color: bool) -> Iterator[str]:
    severity = paint(finding.severity, finding.severity, color)
    yield f"{severity} {paint(f'{finding.code} {finding.name}', 'bold', color)}"
    names = finding.schemes if finding.severity != "info" else finding.schemes[:SHOWN]
    more = f" and {len(finding.schemes) - len(names)} more" * (len(names) < len(finding.schemes))
    yield from _wrap(", ".join(names) + more, "  ")
    yield from _wrap(finding.message, "  ")
    if finding.expected or finding.actual:
        expected = f"expected {finding.expected}, " if finding.expected else ""
        yield from _wrap(f"{expected}found {finding.actual or 'nothing'}", "  ")
    for location in finding.locations[:SHOWN]:
        yield from _wrap(f"- {_place(location)}", "    ", "      ")
    if len(finding.locations) > SHOWN:
        yield f"    … {len(finding.locations) - SHOWN:,} more places, all of them in the JSON"
    yield f"  next: {printable(finding.next_step)}"


def _place(location: Location) -> str:
    where = location.module or location.tensor or location.shard or ""
    if location.module is None and location.tensor and location.shard:
        where = f"{location.shard}: {location.tensor}"
    if location.offset is not None:
        where += f" at byte {location.offset:,}"
    if location.expected and location.actual:
        return f"{where}: expected {location.expected}, found {location.actual}"
    found = location.actual or location.expected
    return f"{where}: {found}" if found else where


def _unread(report: CheckReport | ScanReport, color: bool) -> Iterator[str]:
    if report.unread:
        yield ""
        yield paint("not read", "warning", color)
        for item in report.unread:
            yield from _wrap(f"{item.path}: {item.reason}", "  ", "    ")


def _skipped(skipped: Sequence[Skip]) -> Iterator[str]:
    """Skips with the same reason on one line: they are facts about a scheme, not faults."""
    if not skipped:
        return
    schemes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for skip in skipped:
        schemes[skip.code, skip.reason].append(skip.scheme)
    grouped: dict[str, list[str]] = defaultdict(list)
    for (code, reason), ids in schemes.items():
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        grouped[f"{', '.join(ids[:3])}{more}: {reason}"].append(code)
    yield ""
    yield "not judged"
    for what, codes in grouped.items():
        yield from _wrap(f"{what} ({', '.join(codes)})", "  ", "    ")


def _passed_over(items: Iterable[PassedOver]) -> Iterator[str]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for item in items:
        grouped[item.reason].append(item.path)
    if not grouped:
        return
    yield ""
    yield "passed over"
    for reason, paths in grouped.items():
        shown = ", ".join(paths[:SHOWN])
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        yield from _wrap(f"{reason}: {shown}{more}", "  ", "    ")


def _wrap(text: str, indent: str, further: str | None = None) -> list[str]:
    text = _LONG_WORD.sub(lambda word: f"{word[0][:200]}…{word[0][-60:]}", text)
    text = printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
    # textwrap counts characters: one that takes two columns gets a second, taken out again.
    spaced = "".join(f"{char}\0" if width(char) == 2 else char for char in text)
    lines = textwrap.wrap(
        spaced,
        COLUMNS if spaced == text else COLUMNS - 1,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_on_hyphens=False,
    )
    return [line.replace("\0", "") for line in lines] or [indent]
