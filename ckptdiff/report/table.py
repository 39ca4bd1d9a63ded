"""The table of schemes that `check` and `scan` print: it fits in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptdiff.records.report import ActualRow, DeclaredRow, SchemeRow
from ckptdiff.report.escape import fit, printable, width
from ckptdiff.report.style import human_bytes, paint

# Marks stand beside the colour, so that the table reads without any.
_MARKS = {"ok": "+", "warning": "!", "error": "x", "unread": "?"}
_STYLES = {"unread": "warning"}


def scheme_table(
    rows: Sequence[SchemeRow], *, columns: int, color: bool, judged: bool
) -> Iterator[str]:
    """Lines of at most `columns` columns. `judged` adds identity letter and status."""
    if not rows:
        return
    says = max(len("declared"), *(len(_declared(row.declared)) for row in rows))
    holds = max(len("quantized"), *(len(_actual(row.actual)) for row in rows))
    fixed = 2 + (2 + says) + (2 + holds) + (2 + 7) + (12 if judged else 16)
    widest = max(width(printable(row.id)) for row in rows)
    room = max(12, min(max(widest, 6), columns - fixed))
    head = f"  {fit('scheme', room)}  {'declared':>{says}}  {'quantized':>{holds}}  {'size':>7}"
    head += f"  {'id':<2} status" if judged else f"  {'algorithm':<14}"
    yield paint(head.rstrip(), "dim", color)
    for row in rows:
        mark = _MARKS[row.status] if judged else " "
        line = f"{mark} {fit(row.id, room)}  {_declared(row.declared):>{says}}"
        line += f"  {_actual(row.actual):>{holds}}  {human_bytes(row.bytes):>7}"
        if judged:
            status = paint(row.status, _STYLES.get(row.status, row.status), color)
            line += f"  {row.identity or '-':<2} {status}"
        else:
            line += f"  {fit(row.algo or '-', 14)}"
        yield line.rstrip()


def _declared(row: DeclaredRow | None) -> str:
    if row is None:
        return "-"
    percent = "" if row.percent is None else f"{row.percent:g} %"
    return percent if row.selected is None else f"{row.selected}/{row.total} {percent:>5}"


def _actual(row: ActualRow | None) -> str:
    if row is None:
        return "-"
    share = 100 * row.quantized / row.total if row.total else 0.0
    return f"{row.quantized}/{row.total} {share:>3.0f} %"
