"""Jobs -> rows and lines: what mode Jobs shows, as plain functions of their records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ckptdiff.tui.chrome import progress
from ckptdiff.tui.plan_view import outcome_lines
from ckptdiff.tui.store import Column, Store, Value
from ckptdiff.tui.text import Line, fields, shown, texts

if TYPE_CHECKING:
    from ckptdiff.tui.state import JobRecord

_MARKS = {"running": "…", "stopping": "…", "done": "✓", "failed": "✗", "cancelled": "!"}
_TONES = {"running": "accent", "stopping": "warning", "done": "ok", "failed": "error",
          "cancelled": "warning"}  # fmt: skip


def status_of(record: JobRecord) -> str:
    """One word for how a job is."""
    if record.runs:
        return "stopping" if record.stopping else "running"
    if record.cancelled:
        return "cancelled"
    undone = record.failure or getattr(record.result, "failed", False)
    return "failed" if undone else "done"


def jobs_store(jobs: tuple[JobRecord, ...], now: float) -> Store:
    """A row a job, the newest first."""
    rows = jobs[::-1]
    states = [status_of(record) for record in rows]
    seconds: list[Value] = [(record.ended or now) - record.started for record in rows]
    columns = (
        Column("job", "job", [record.title for record in rows], most=60, least=24),
        Column("status", "status", [f"{_MARKS[state]} {state}" for state in states], 11,
               tone=lambda row: _TONES[states[row]],
               faults=frozenset(n for n, state in enumerate(states) if state == "failed")),
        Column("share", "done", [_share(record) for record in rows], 6, "right", text=_percent),
        Column("seconds", "takes", seconds, 9, "right", text=_duration),
        Column("started", "started", [_clock(record.started) for record in rows], 9, "right"),
        Column("words", "command", [" ".join(record.words) for record in rows], wide_only=True),
    )  # fmt: skip
    return Store(columns, [record.name for record in rows], {"status": states})


def job_lines(record: JobRecord, width: int) -> list[Line]:
    """How a job is, what came of it, what was planned."""
    state = status_of(record)
    head = (f"{_MARKS[state]} {state}  ", _TONES[state])
    lines: list[Line] = [[head, (shown(record.title), "bold")]]
    if record.runs:
        work = record.progress
        lines.append(progress(work) if work is not None else [("… starting", "accent")])
        if record.stopping:
            lines.append([("it cleans up behind itself", "dim")])
        else:
            lines.append([("x", "key"), (" cancels it; the app can be used meanwhile", "dim")])
    else:
        took = _duration((record.ended or 0.0) - record.started)
        lines.append([(f"took {took}, from {_clock(record.started)}", "dim")])
    for line in record.failure.splitlines():
        lines += texts(line, width, "warning" if record.cancelled else "error")
    lines += _result(record, width)
    if record.plan:
        lines += [[("plan", "title")], *fields(record.plan, width)]
    return lines


def _result(record: JobRecord, width: int) -> list[Line]:
    """What the report says, in the words of its own command where it is not a plan's."""
    from ckptdiff import api
    from ckptdiff.records.plan import PlanReport

    if record.result is None:
        return []
    if isinstance(record.result, PlanReport):
        return outcome_lines(record.result, width)
    text = api.render(record.result).decode("utf-8", "replace")
    return [[(shown(line), "")] for line in text.splitlines()]


def log_lines(record: JobRecord | None, width: int) -> list[Line]:
    """What a job said, the newest last."""
    lines: list[Line] = [[("log", "title")]]
    if record is None:
        return []
    if not record.log:
        return [*lines, [("nothing yet" if record.runs else "it said nothing", "dim")]]
    return lines + [line for text in record.log for line in texts(text, width, "dim")]


def _share(record: JobRecord) -> float | None:
    """How far the present stage is; None where that is not known."""
    work = record.progress
    if not record.runs or work is None or not work.total:
        return None
    return min(1.0, work.done / work.total)


def _percent(value: Value) -> str:
    return f"{value:.0%}" if isinstance(value, float) else "-"


def _duration(value: Value) -> str:
    seconds = float(value) if isinstance(value, int | float) else 0.0
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
