"""`ckptdiff diff` as text: the verdict, how much differs and where, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckptdiff.records.delta import (
    STATUSES,
    DiffReport,
    DiffTotal,
    GroupDelta,
    Number,
    Side,
    TensorDelta,
)
from ckptdiff.records.wording import plural
from ckptdiff.report.escape import fit, printable, width
from ckptdiff.report.lines import COLUMNS, unread_lines, verdict_lines, wrap
from ckptdiff.report.style import paint

_WORDS = {
    "same": ("SAME", "ok"),
    "different": ("DIFFERENT", "error"),
    "incomplete": ("NOT COMPLETE", "warning"),
    "not comparable": ("NOT COMPARABLE", "warning"),
}
_HEADS = {
    "shape": "other shape",
    "only_a": "only in A",
    "only_b": "only in B",
    "unread": "not compared",
    "same": "same",
}
# Groups that a table shows: the worst of them, when there are more.
_GROUPS = 12
_BAR = 40
# Above that share of changed elements, where the first one is says nothing.
_FEW = 0.1
_NUMBERS = 4 * 9


def diff_text(report: DiffReport, *, color: bool = False) -> str:
    """A `DiffReport` as text, one verdict sentence first."""
    return "\n".join(_lines(report, color)) + "\n"


def _lines(report: DiffReport, color: bool) -> Iterator[str]:
    word, style = _WORDS[report.verdict]
    yield from verdict_lines(word, style, report.sentence, color)
    yield from wrap(f"A: {report.a}", "", "   ")
    yield from wrap(f"B: {report.b}", "", "   ")
    yield ""
    yield from wrap(_counts(report.total), "", "  ")
    if report.total.sqnr_db is not None:
        yield from wrap(_error(report.total), "", "  ")
    yield from _groups("kind of module", report.kinds, color)
    yield from _groups("layer", report.layers, color)
    yield from _tensors(report.tensors, color)
    for status, head in _HEADS.items():
        yield from _listed(head, [row for row in report.tensors if row.status == status], color)
    if not report.tensors and not report.left_out and report.total.tensors > report.total.same:
        yield ""
        yield from wrap(f"no tensor has a status that --only asks for; {_statuses(report)}", "")
    if report.left_out:
        yield ""
        yield f"… {report.left_out:,} more tensors; --limit shows more of them"
    yield from _folded(report.tensors)
    yield from _histogram(report.histogram, color)
    yield from unread_lines(report.unread, color)


def _counts(total: DiffTotal) -> str:
    parts = [
        (total.same, "same"),
        (total.changed, "changed"),
        (total.dtype, "stored in another format"),
        (total.shape, "of another shape"),
        (total.only_a, "only in A"),
        (total.only_b, "only in B"),
        (total.unread, "not compared"),
    ]
    said = ", ".join(f"{count:,} {what}" for count, what in parts if count)
    return f"{plural(total.tensors, 'tensor')}: {said or 'none'}"


def _statuses(report: DiffReport) -> str:
    """Which statuses there are, in the words of --only."""
    counts = [(name, getattr(report.total, name)) for name in STATUSES]
    return "there are " + ", ".join(f"{count:,} {name}" for name, count in counts if count)


def _error(total: DiffTotal) -> str:
    apart = f"; {plural(total.nonfinite, 'value')} not finite, left out of these"
    return (
        f"weights that differ: SQNR {_decibels(total.sqnr_db)} dB, relative error "
        f"{_short(total.rel_error)}, largest difference {_short(total.max_abs)}"
        f"{apart * bool(total.nonfinite)}"
    )


def _groups(what: str, groups: Sequence[GroupDelta], color: bool) -> Iterator[str]:
    """The groups in which something differs."""
    touched = [group for group in groups if group.changed]
    if len(touched) < 2:
        return
    shown = touched
    if len(touched) > _GROUPS:
        shown = sorted(touched, key=lambda g: (-g.nonfinite, -_value(g.rel_error)))[:_GROUPS]
    room = max(len(what), *(width(printable(group.name)) for group in shown))
    room = min(max(room, 16), COLUMNS - 12 - 3 * 9)
    yield ""
    head = f"{fit(what, room)}{'differ':>12}{'SQNR dB':>9}{'rel err':>9}{'max':>9}"
    yield paint(head, "dim", color)
    for group in shown:
        numbers = f"{_decibels(group.sqnr_db):>9}{_short(group.rel_error):>9}"
        share = f"{group.changed:,}/{group.tensors:,}"
        yield f"{fit(group.name, room)}{share:>12}{numbers}{_short(group.max_abs):>9}"
        if group.nonfinite:
            yield f"  {group.nonfinite:,} not finite"
    if more := len(touched) - len(shown):
        smaller = " with a smaller error" * any(group.rel_error is not None for group in shown)
        yield f"… {more:,} more{smaller}"


def _tensors(rows: Sequence[TensorDelta], color: bool) -> Iterator[str]:
    """Those with numbers, in the order of the report."""
    compared = [row for row in rows if row.status in ("changed", "dtype")]
    if not compared:
        return
    names = max(width(printable(row.name)) for row in compared)
    room = min(max(names, 12), COLUMNS - _NUMBERS)
    yield ""
    head = f"{fit('tensor', room)}{'SQNR dB':>9}{'rel err':>9}{'max':>9}{'changed':>9}"
    yield paint(head, "dim", color)
    for row in compared:
        numbers = f"{_decibels(row.sqnr_db):>9}{_short(row.rel_error):>9}{_short(row.max_abs):>9}"
        yield f"{fit(row.name, room)}{numbers}{_percent(row.changed_share):>9}"
        yield from wrap(_remarks(row), "  ", "    ")


def _remarks(row: TensorDelta) -> str:
    """What its numbers do not say."""
    said = [_formats(row.a, row.b)]
    if row.reason:
        said.append(row.reason)
    if row.cause == "scales":
        said.append("equal codes under other scales")
    elif row.cause:
        said.append(f"other {row.cause}")
    if row.first_difference and _value(row.changed_share) < _FEW:
        said.append(f"first at [{', '.join(map(str, row.first_difference))}]")
    if row.nonfinite:
        said.append(f"{row.nonfinite:,} not finite")
    if row.folded:
        said.append("as it acts, AWQ undone")
    if row.raw:
        raw = row.raw
        share = f"{raw.changed:,} of {raw.codes:,} codes"
        said.append(f"{share}, up to {raw.max_steps:,} steps" if raw.changed else f"0 {share[2:]}")
    return "; ".join(said)


def _formats(a: Side | None, b: Side | None) -> str:
    one, other = _format(a), _format(b)
    return one if one == other else f"{one} against {other}"


def _format(side: Side | None) -> str:
    if side is None:
        return "nothing"
    return side.layout or side.dtype


def _listed(head: str, rows: Sequence[TensorDelta], color: bool) -> Iterator[str]:
    """Those that have nothing but a name and a reason."""
    if not rows:
        return
    yield ""
    yield paint(head, "bold", color)
    for row in rows:
        side = row.a or row.b
        said = f"{side.dtype} {list(side.shape)}" if side else ""
        if row.status == "shape" and row.a and row.b:
            said = f"{row.a.dtype} {list(row.a.shape)} against {row.b.dtype} {list(row.b.shape)}"
        if row.reason:
            said = row.reason
        yield from wrap(f"{row.name}: {said}", "  ", "    ")


def _folded(rows: Iterable[TensorDelta]) -> Iterator[str]:
    if any(row.folded for row in rows):
        yield ""
        yield from wrap(
            "AWQ divides the inputs of a weight by what it multiplies the norm, or the linear, in "
            "front of it by. Such weights are compared as they act: with that undone, as far as "
            "the norms (or rows of the linear) of A and B tell it. Norms have rows of their own.",
            "",
        )


def _histogram(counts: Sequence[tuple[int, int]], color: bool) -> Iterator[str]:
    if not counts:
        return
    total, most = sum(count for _, count in counts), max(count for _, count in counts)
    found = dict(counts)
    yield ""
    yield paint("elements of weights by |B - A| (estimated where many differ)", "bold", color)
    for decade in range(max(found), min(found) - 1, -1):
        count = found.get(decade, 0)
        bar = "#" * round(_BAR * count / most) or ("." if count else "")
        share = _percent(count / total) if count else ""
        yield f"  {f'from 1e{decade}':>10}  {bar:<{_BAR}} {share:>8}".rstrip()


def _decibels(value: Number) -> str:
    return f"{value:.1f}" if isinstance(value, float) else _short(value)


def _short(value: Number) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}[value]
    return "0" if value == 0 else f"{value:.2e}" if value < 1e-3 or value >= 1e4 else f"{value:.4g}"


def _percent(value: Number) -> str:
    if not isinstance(value, float):
        return _short(value)
    if 0 < value < 0.0001:
        return "<0.01 %"
    return f"{100 * value:.2f} %" if value < 0.1 else f"{100 * value:.1f} %"


def _value(value: Number) -> float:
    return float(value) if value is not None else -1.0
