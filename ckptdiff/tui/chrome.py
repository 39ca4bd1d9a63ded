"""The lines around every mode: title with breadcrumbs, verdict, status, keys.

Pure functions of the state and the width at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

from ckptdiff.records.wording import plural
from ckptdiff.report.style import human_bytes
from ckptdiff.tui.actions import ACTIONS, BY_ID
from ckptdiff.tui.state import MODES, Progress, State
from ckptdiff.tui.text import Line, Piece, clipped, fit, shown, wrapped

# Lines that the verdict may take.
_ROWS = 3
MARKS = {"ok": "✓", "warning": "!", "error": "✗", "unread": "?"}
TONES = {"ok": "ok", "warning": "warning", "error": "error", "unread": "warning"}


# Columns that the path in the title wants at least, and a part of the status that is cut.
_PATH, _PART = 12, 20
# What a click on a part of a line does: the action's id, "" for none.
Spot = tuple[str, Line]


def title(state: State, crumbs: Sequence[str], width: int) -> list[Line]:
    """Where we are, and the modes with their keys."""
    return [[piece for _, pieces in title_spots(state, crumbs, width) for piece in pieces]]


def title_spots(state: State, crumbs: Sequence[str], width: int) -> list[Spot]:
    """The parts of the title; where there is no room for all of them, modes that are not open
    are keys alone."""
    named = {mode: f" {BY_ID[mode].key} {BY_ID[mode].name} " for mode in MODES}
    if sum(map(len, named.values())) + _PATH > width:
        named |= {mode: f" {BY_ID[mode].key} " for mode in MODES if mode != state.mode}
    modes: list[Spot] = []
    for mode, text in named.items():
        tone = "active" if mode == state.mode else "dim" if BY_ID[mode].why_not(state) else ""
        modes.append((mode, [(text, tone)]))
    taken = sum(map(len, named.values()))
    root = Path(state.options.root)
    where = root.name or str(root.resolve().name) or "/"
    path = " › ".join([where, *map(shown, crumbs)])
    room = max(0, width - taken - 2)
    return [("", [(f" {fit(path, room)} ", "title")]), *modes]


def action_at(spots: Sequence[Spot], x: int) -> str:
    """The action of the part that column `x` is in, "" for none."""
    for action, pieces in spots:
        x -= sum(cell_len(text) for text, _ in pieces)
        if x < 0:
            return action
    return ""


def verdict(state: State, width: int, rows: int = 0) -> list[Line]:
    """The one sentence, behind a mark and a word that say it without colour; in `rows` lines
    at most (0: as many as it may have)."""
    return clipped(_verdict(state, width), min(rows or _ROWS, _ROWS), width)


def _verdict(state: State, width: int) -> list[Line]:
    lines: list[Line] = []
    if state.problem:
        as_it_was = "; shown as it was before" if state.report is not None else ""
        lines += _headed(" ! ", "verdict-open", f"{state.problem}{as_it_was}", width)
    report = state.report
    if state.mode == "probe" and state.probed is not None:
        from ckptdiff.tui.probe_view import verdict_parts

        return [*lines, *_headed(*verdict_parts(state.probed), width)]
    if report is None:
        if not state.problem:
            lines.append([(" … ", "verdict-open"), (" reading headers", "")])
        return lines
    if report.verdict.status == "fail":
        word, tone = " ✗ FAIL ", "verdict-fail"
    elif not report.verdict.complete:
        word, tone = " ? NOT COMPLETE ", "verdict-open"
    else:
        word, tone = " ✓ PASS ", "verdict-pass"
    return [*lines, *_headed(word, tone, report.verdict.sentence, width)]


def _headed(word: str, tone: str, text: str, width: int) -> list[Line]:
    indent = len(word) + 1
    first, *rest = wrapped(text, max(20, width - indent))
    lines: list[Line] = [[(word, tone), (f" {first}", "bold")]]
    return lines + [[(" " * indent + line, "bold")] for line in rest]


def status(state: State, right: str, width: int) -> list[Line]:
    """Counts or progress on the left, what the filter leaves on the right. Of the parts on the
    left those that do not fit are left out, unless enough of them can be read."""
    line: list[Piece] = []
    room = width - (len(right) + 2 if right else 0)
    for text, tone in _left(state):
        text = text if cell_len(text) <= room else text.rstrip()
        if line and room < min(cell_len(text), _PART):
            continue
        text = fit(text, min(room, cell_len(text)))
        room -= cell_len(text)
        line.append((text, tone))
    if right:
        line.append((fit(right, room + len(right) + 2, "right"), "dim"))
    return [line]


def _left(state: State) -> Line:
    if state.work:
        if state.mode == "probe" and state.probed is not None:
            from ckptdiff.tui.probe_view import shortened

            own = next((w for w in state.work if w.job == state.probed.job), state.work[0])
            return progress(own._replace(stage=shortened(own.stage, state.probed.names)))
        return progress(state.work[0])
    failure = next(iter(state.failures.values()), "")
    if failure:
        return [(f"! {shown(failure.splitlines()[0])}", "warning")]
    report = state.report
    if report is None:
        return []
    counts = report.counts
    base = f"base {report.base.id}" if report.base else f"no base: {report.why_no_base}"
    line: list[Piece] = [(plural(counts.schemes, "scheme"), "bold")]
    for number, word, tone in (
        (counts.errors, "error", "error"),
        (counts.warnings, "warning", "warning"),
        (counts.unread, "unread", "warning"),
    ):
        if number or word == "error":
            text = f"{number:,} unread" if word == "unread" else plural(number, word)
            line.append((text, tone if number else "ok"))
    safe = len(report.verdict.safe)
    line.append((f"{safe or 'none'} safe to use", "ok" if safe else "error"))
    line.append((shown(base), "dim"))
    line += [("deep", "accent")] if state.deep else []
    moved = [
        f"{len(ids)} {word}"
        for ids, word in ((state.changed, "changed"), (state.gone, "gone"))
        if ids
    ]
    line += [(f"~ {', '.join(moved)}", "warning")] if moved else []
    return [(f"{text}  ", tone) for text, tone in line]


def progress(work: Progress) -> Line:
    """One job: what it does, how far it is, how long it still takes."""
    names = {
        "hash": "hashing",
        "read": "reading headers",
        "cast": "comparing with base",
        "load": "loading weights",
        "start": "starting a process with torch",
        "import": "importing torch",
        "prove": "proving against base",
        "write": "writing",
    }
    what = names.get(work.stage, work.stage or work.job)
    if not work.total:
        return [("… ", "accent"), (what, "")]
    share = min(1.0, work.done / work.total)
    bar = "█" * round(12 * share)
    line: list[Piece] = [(f"… {what} ", "accent"), (f"{bar:░<12}", "accent"), (f" {share:.0%}", "")]
    if work.unit != "bytes":
        return [*line, (f"  {work.done:,} of {work.total:,} {work.unit}", "dim")]
    line.append((f"  {human_bytes(work.done)} of {human_bytes(work.total)}", "dim"))
    if work.seconds > 0.5 and work.done:
        rate = work.done / work.seconds
        left = (work.total - work.done) / rate
        line.append((f"  {human_bytes(rate)}/s  {left:,.0f} s left", "dim"))
    return line


def keys(state: State, width: int) -> list[Line]:
    """The keys, the disabled ones dim, as many as fit."""
    return [[piece for _, pieces in key_spots(state, width) for piece in pieces]]


def key_spots(state: State, width: int) -> list[Spot]:
    """The parts of the line of keys."""
    spots: list[Spot] = []
    used = 0
    for action in sorted(ACTIONS, key=lambda action: _ORDER.get(action.id, 99)):
        if action.id in MODES or not action.short or state.mode not in (action.only or MODES):
            continue
        size = len(action.key) + len(action.short) + 3
        if used + size > width:
            break
        used += size
        off = action.why_not(state) is not None
        pieces = [(f" {action.key}", "dim" if off else "key"),
                  (f" {action.short} ", "dim" if off else "")]  # fmt: skip
        spots.append((action.id, pieces))
    return spots


_ORDER = {name: n for n, name in enumerate(
    ("help", "quit", "palette", "run", "cancel", "filter", "next", "mark", "reexport",
     "copy", "export", "rule", "back", "sort"))}  # fmt: skip
