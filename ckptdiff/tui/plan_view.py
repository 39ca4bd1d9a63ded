"""Plans of re-exports and what became of them -> lines, for the dialog and for Jobs.

Plain functions of records; every name and reason in them is escaped where it is wrapped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptdiff.records.wording import plural
from ckptdiff.report.style import human_bytes
from ckptdiff.tui.text import Line, Piece, fields, fit, short_names, texts, wrapped

if TYPE_CHECKING:
    from ckptdiff.records.plan import Outcome, Plan, PlanReport

Pairs = Iterator[tuple[str, str]]
# Of the modules that nothing supplies so many are named.
_SHOWN = 6


def head_lines(report: PlanReport, width: int) -> list[Line]:
    """Whether it can be done, and how much would be written."""
    (word, tone), said = _head(report)
    first, *rest = wrapped(said, max(16, width - len(word)))
    return [[(word, tone), (first, "bold")], *([(f"  {line}", "bold")] for line in rest)]


def _head(report: PlanReport) -> tuple[Piece, str]:
    count = plural(len(report.plans), "scheme")
    able = [plan for plan in report.plans if plan.possible]
    if len(able) < len(report.plans):
        missing = len(report.plans) - len(able)
        return ("✗ cannot: ", "error"), f"{missing} of {count} cannot be written"
    size = human_bytes(sum(plan.bytes for plan in able))
    free = next((plan.free for plan in able if plan.free is not None), None)
    room = "" if free is None else f", {human_bytes(free)} free"
    return ("✓ possible: ", "ok"), f"{count}, {size} to write{room}"


def plan_lines(report: PlanReport, width: int) -> list[Line]:
    """Each plan, what it lacks first."""
    lines: list[Line] = list(_overview(report, width)) if len(report.plans) > 1 else []
    for plan in report.plans:
        name, *rest = texts(plan.scheme, width - 2, "bold")
        lines += [[_mark(plan), *name], *rest]
        lines += fields(_lacks(plan), width, "warning")
        lines += fields(_plan(plan), width)
    for note in dict.fromkeys(
        (*(note for plan in report.plans for note in plan.notes), *report.notes)
    ):
        lines += texts(f"note: {note}", width, "dim")
    return lines


def _overview(report: PlanReport, width: int) -> Iterator[Line]:
    """A line a scheme, before they are told one after the other."""
    names = short_names([plan.scheme for plan in report.plans])
    room = min(max(map(len, names)), width // 3)
    for name, plan in zip(names, report.plans, strict=True):
        lacking = f", {len(plan.missing):,} missing" if plan.missing else ""
        lacking += ", refused" if plan.refused else ""
        what = f"{plan.engine:<9} {len(plan.selected):,} selected, {len(plan.dropped):,} dropped"
        text = f"{what}, {human_bytes(plan.bytes)}" if plan.possible else f"{what}{lacking}"
        text = fit(text, min(len(text), max(8, width - room - 4)))
        yield [_mark(plan), (fit(name, room), "bold"), (f"  {text}", "")]
    yield []


def _mark(plan: Plan) -> Piece:
    return ("✓ ", "ok") if plan.possible else ("✗ ", "error")


def _lacks(plan: Plan) -> Pairs:
    """What keeps a plan from being carried out."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for item in plan.missing:
        reasons[item.reason].append(item.module)
    for reason, modules in reasons.items():
        names = ", ".join(modules[:_SHOWN])
        names += f" and {len(modules) - _SHOWN:,} more" if len(modules) > _SHOWN else ""
        yield "missing", f"{plural(len(modules), 'module')}: {names}; {reason}"
    for reason in plan.refused:
        yield "refused", reason


def _plan(plan: Plan) -> Pairs:
    yield "engine", f"{plan.engine}: {plan.why}"
    if plan.selected or plan.missing:
        chosen = len(plan.selected) + len(plan.missing)
        yield (
            "selected",
            f"{plural(chosen, 'module')} to {plan.algorithm}; {len(plan.dropped):,} dropped",
        )
    counts = Counter((module.source, module.evidence) for module in plan.selected)
    for (source, evidence), count in counts.items():
        how = "proven against base" if evidence == "proven" else "held against base by distance"
        yield "donor", f"{count:,} from {source}, {how}" if source else f"{count:,} made from base"
    yield "base", plan.base or "none"
    if plan.original is not None:
        fate = "becomes .broken-N" if plan.in_place else "stays, and goes on failing"
        yield "repairs", f"{plan.original} ({fate})"
    yield "target", plan.target
    if plan.possible:
        free = "" if plan.free is None else f" of {human_bytes(plan.free)} free"
        yield "writes", f"{human_bytes(plan.bytes)}{free}"


def outcome_lines(report: PlanReport, width: int) -> list[Line]:
    """What became of each plan, failures with their next step."""
    lines: list[Line] = []
    for outcome in report.outcomes:
        written = outcome.status == "written"
        mark, tone = ("✓", "ok") if written else ("✗", "error")
        (state, *first), *rest = texts(f"{outcome.status} {outcome.scheme}", width - 2, "bold")
        lines += [[(f"{mark} ", tone), state, *first], *rest]
        lines += fields(_reason(outcome), width, "warning")
        lines += fields(_outcome(outcome), width)
    return lines


def _reason(outcome: Outcome) -> Pairs:
    if outcome.reason:
        yield "reason", outcome.reason
    for number, line in enumerate((outcome.next_step or "").splitlines()):
        yield "" if number else "next", line


def _outcome(outcome: Outcome) -> Pairs:
    if outcome.fingerprint:
        yield "fingerprint", outcome.fingerprint
    yield "target", outcome.target
    if outcome.bytes:
        yield "size", human_bytes(outcome.bytes)
    if outcome.set_aside:
        yield "original", f"is {outcome.set_aside} now"
    if outcome.seconds:
        yield "took", ", ".join(f"{stage} {s:.1f} s" for stage, s in outcome.seconds.items())
    for note in outcome.notes:
        yield "note", note
    for left in outcome.cleaned:
        yield "cleaned", left


def in_a_line(plan: Plan) -> str:
    what = f"{len(plan.selected):,} selected, {len(plan.dropped):,} dropped"
    place = "in place" if plan.in_place else f"as {plan.target}"
    return f"{plan.engine}, {what}, {human_bytes(plan.bytes)} {place}"
