"""Plans of `ckptdiff sweep` and `ckptdiff reexport` as text, and what became of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from ckptdiff.records.plan import Outcome, Plan, PlanReport
from ckptdiff.records.wording import plural
from ckptdiff.report.escape import printable
from ckptdiff.report.lines import wrap
from ckptdiff.report.style import human_bytes, paint

_INDENT = " " * 15


def plan_text(report: PlanReport, *, color: bool = False) -> str:
    """One line for all, then a block a scheme; outcomes instead once there are any."""
    lines = _outcomes(report, color) if report.outcomes else _plans(report, color)
    return "\n".join(lines) + "\n"


def _plans(report: PlanReport, color: bool) -> Iterator[str]:
    able = [plan for plan in report.plans if plan.possible]
    count = plural(len(report.plans), "scheme")
    if len(able) == len(report.plans):
        size = human_bytes(sum(plan.bytes for plan in able))
        line = f"PLAN: {count}, {size} to write"
        yield paint("PLAN", "ok", color) + line.removeprefix("PLAN")
    else:
        line = f"CANNOT: {len(report.plans) - len(able)} of {count} cannot be written"
        yield paint("CANNOT", "error", color) + line.removeprefix("CANNOT")
    for plan in report.plans:
        yield ""
        yield from wrap(plan.scheme, "", "  ")
        yield from _plan(plan, color)
    for note in report.notes:
        yield ""
        yield from wrap(f"note: {note}", "", "  ")


def _plan(plan: Plan, color: bool) -> Iterator[str]:
    yield from _row("target", plan.target)
    if plan.original is not None:
        fate = "set aside as .broken-N" if plan.in_place else "stays where it is"
        yield from _row("repairs", f"{plan.original} ({fate})")
    yield from _row("base", plan.base or "none")
    yield from _row("engine", f"{plan.engine}: {plan.why}")
    if plan.selected or plan.missing:
        chosen = len(plan.selected) + len(plan.missing)
        dropped = plural(len(plan.dropped), "other")
        yield from _row(
            "quantize", f"{plural(chosen, 'module')} ({plan.algorithm}); {dropped} kept"
        )
    yield from _sources(plan)
    for reason, modules in _missing(plan).items():
        what = f"{plural(len(modules), 'module')}: {', '.join(modules)}"
        yield from _row(paint("missing", "error", color), what, _padding("missing"))
        yield from wrap(f"because {reason}", _INDENT)
    for reason in plan.refused:
        yield from _row(paint("refused", "error", color), reason, _padding("refused"))
    carried = defaultdict(list)
    for file in plan.carried:
        carried[file.source].append(file.name)
    for source, names in carried.items():
        yield from _row("carries", f"{', '.join(names)} of {source}")
    if plan.possible:
        free = "" if plan.free is None else f", {human_bytes(plan.free)} free"
        yield from _row("writes", f"{human_bytes(plan.bytes)}{free}; {plan.provenance}")
    for note in plan.notes:
        yield from _row("note", note)


def _sources(plan: Plan) -> Iterator[str]:
    """Who supplies the selected modules, and what will be known of them."""
    counts = Counter((module.source, module.evidence) for module in plan.selected)
    for (source, evidence), count in counts.items():
        who = "made from base" if source is None else f"from {source}"
        how = "proven against base" if evidence == "proven" else "held against base by distance"
        before = "" if source is None else f", {how} before a byte is written"
        yield from _row("takes", f"{count:,} {who}{before}")


def _missing(plan: Plan) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for item in plan.missing:
        grouped[item.reason].append(item.module)
    return grouped


def _outcomes(report: PlanReport, color: bool) -> Iterator[str]:
    written = [outcome for outcome in report.outcomes if outcome.status == "written"]
    line = f"{len(written)} of {plural(len(report.outcomes), 'scheme')} written"
    word = "DONE" if len(written) == len(report.outcomes) else "FAILED"
    yield f"{paint(word, 'ok' if word == 'DONE' else 'error', color)}: {line}"
    for outcome in report.outcomes:
        yield ""
        yield from _outcome(outcome, color)
    notes = dict.fromkeys((*(n for plan in report.plans for n in plan.notes), *report.notes))
    for note in notes:
        yield ""
        yield from wrap(f"note: {note}", "", "  ")


def _outcome(outcome: Outcome, color: bool) -> Iterator[str]:
    style = "ok" if outcome.status == "written" else "error"
    yield f"{paint(outcome.status, style, color)} {printable(outcome.scheme)}"
    yield from _row("target", outcome.target)
    if outcome.fingerprint:
        yield from _row("fingerprint", outcome.fingerprint)
    if outcome.set_aside:
        yield from _row("original", f"is {outcome.set_aside} now")
    if outcome.reason:
        yield from _row("reason", outcome.reason)
    for number, line in enumerate((outcome.next_step or "").splitlines()):
        yield from _row("" if number else "next", line)
    if outcome.seconds:
        stages = (f"{stage} {seconds:.1f} s" for stage, seconds in outcome.seconds.items())
        yield from _row("took", ", ".join(stages))
    for note in outcome.notes:
        yield from _row("note", note)
    for left in outcome.cleaned:
        yield from _row("cleaned", left)


def _row(label: str, text: str, padding: str | None = None) -> Iterator[str]:
    """A labelled paragraph; `padding` for a label that carries colour."""
    first, *rest = wrap(text, _INDENT)
    pad = _padding(label) if padding is None else padding
    yield f"  {label}{pad}{first[len(_INDENT) :]}"
    yield from rest


def _padding(label: str) -> str:
    return " " * (len(_INDENT) - 2 - len(label))
