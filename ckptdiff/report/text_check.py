"""`ckptdiff check` as text: verdict, evidence, next step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckptdiff.records.finding import Finding, Skip
from ckptdiff.records.report import CheckReport, SchemeRow
from ckptdiff.records.wording import plural
from ckptdiff.report.findings import merged_infos, place_of
from ckptdiff.report.lines import (
    COLUMNS,
    SHOWN,
    base_line,
    command_lines,
    passed_over_lines,
    unread_lines,
    verdict_lines,
    wrap,
)
from ckptdiff.report.style import paint
from ckptdiff.report.table import scheme_table


def check_text(report: CheckReport, *, color: bool = False) -> str:
    """A `CheckReport` as text, one verdict sentence first."""
    return "\n".join(_check_lines(report, color)) + "\n"


def _check_lines(report: CheckReport, color: bool) -> Iterator[str]:
    failed = report.verdict.status == "fail"
    word = "FAIL" if failed else "PASS" if report.verdict.complete else "NOT COMPLETE"
    style = "error" if failed else "ok" if report.verdict.complete else "warning"
    yield from verdict_lines(word, style, report.verdict.sentence, color)
    yield ""
    yield from scheme_table(report.schemes, columns=COLUMNS, color=color, judged=True)
    yield ""
    yield from base_line(report.base, report.why_no_base)
    yield from _recomputed(report.schemes)
    if report.config:
        yield from wrap(f"settings: {report.config}", "")
    yield from wrap(f"safe to use: {', '.join(report.verdict.safe) or 'none'}", "", "  ")
    for finding in merged_infos(report.findings):
        yield ""
        yield from _finding(finding, color)
    yield from unread_lines(report.unread, color)
    if report.ignored:
        yield ""
        yield paint("ignored", "bold", color)
        for item in report.ignored:
            what = f"{item.code} {item.name} in {', '.join(item.schemes)}: {item.reason}"
            yield from wrap(what, "  ", "    ")
    yield from _skipped(report.skipped)
    yield from passed_over_lines(report.passed_over)
    yield ""
    counts = report.counts
    yield (
        f"{plural(counts.schemes, 'scheme')}: {plural(counts.errors, 'error')}, "
        f"{plural(counts.warnings, 'warning')}, {counts.infos} info, {counts.unread} unread"
    )


def _recomputed(rows: Sequence[SchemeRow]) -> Iterator[str]:
    """What `--deep` showed of each scheme, and which dialects wrote it."""
    proofs = [(row.id, row.proof) for row in rows if row.proof is not None]
    if proofs:
        yield "recomputed from base"
    for id, proof in proofs:
        counts = {"proven": proof.proven, "not provable and near": proof.searched,
                  "wrong": proof.wrong, "not recomputed": proof.unknown}  # fmt: skip
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        writers = f" ({', '.join(proof.dialects)})" * bool(proof.dialects)
        yield from wrap(f"{id}: {said or 'nothing is quantized'}{writers}", "  ", "    ")


def _finding(finding: Finding, color: bool) -> Iterator[str]:
    severity = paint(finding.severity, finding.severity, color)
    yield f"{severity} {paint(f'{finding.code} {finding.name}', 'bold', color)}"
    names = finding.schemes if finding.severity != "info" else finding.schemes[:SHOWN]
    more = f" and {len(finding.schemes) - len(names)} more" * (len(names) < len(finding.schemes))
    yield from wrap(", ".join(names) + more, "  ")
    yield from wrap(finding.message, "  ")
    if finding.expected or finding.actual:
        expected = f"expected {finding.expected}, " if finding.expected else ""
        yield from wrap(f"{expected}found {finding.actual or 'nothing'}", "  ")
    for location in finding.locations[:SHOWN]:
        yield from wrap(f"- {place_of(location)}", "    ", "      ")
    if len(finding.locations) > SHOWN:
        yield f"    … {len(finding.locations) - SHOWN:,} more places, all of them in the JSON"
    yield from command_lines(finding.next_step, "  next:")


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
        yield from wrap(f"{what} ({', '.join(codes)})", "  ", "    ")
