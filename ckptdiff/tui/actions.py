"""The one table of actions: keys, palette, help, footer and tests all read it.

An action that cannot be taken now is shown all the same, with the reason. An action that shows
what a command would print has that command as words; the test holds both to the same bytes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ckptdiff.tui import probing
from ckptdiff.tui.reexports import request_of
from ckptdiff.tui.state import MODES, Mode, State

if TYPE_CHECKING:
    from ckptdiff.records.finding import Finding

Words = tuple[str, ...]


def always(state: State) -> str | None:
    """No reason against it."""
    return None


def no_command(state: State) -> Words | None:
    """Changes the view alone, for which there is no command."""
    return None


class Action(NamedTuple):
    """One thing to do. `keys` as Textual spells them; `short` is the footer's word for it.
    `only`: the modes in which its keys mean this, when not in all."""

    id: str
    keys: str
    name: str
    help: str
    short: str = ""
    why_not: Callable[[State], str | None] = always
    command: Callable[[State], Words | None] = no_command
    only: tuple[Mode, ...] = ()

    @property
    def key(self) -> str:
        """The first key, as people read it."""
        return _READABLE.get(first := self.keys.partition(",")[0], first)


_READABLE = {"question_mark": "?", "slash": "/", "escape": "esc", "colon": ":"}


def command_line(words: Words) -> str:
    """Words as somebody would type them. A name's control characters, which a terminal might
    take for keys when the line is pasted, are spelled in the way of bash and zsh."""
    return " ".join(map(_typed, ("ckptdiff", *words)))


def _typed(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    spelled = (
        char
        if char.isprintable() and char not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in word
    )
    return f"$'{''.join(spelled)}'"


def _where(state: State) -> Words:
    root, base = state.options.root, state.options.base
    return (root, *(("--base", base) if base is not None else ()))


def check_words(state: State) -> Words:
    """The report that Sweep and Identity show."""
    config = state.options.config
    settings = ("--config", config) if config is not None else ()
    if not state.hashed:
        return ("check", *_where(state), *settings, "--no-hash")
    return ("check", *_where(state), *settings, *(("--deep",) if state.deep else ()))


def rehash_words(state: State) -> Words:
    """The report once every byte was read again."""
    return (*check_words(replace(state, hashed=True)), "--rehash")


def deep_words(state: State) -> Words:
    """The report once every quantized weight was recomputed."""
    return check_words(replace(state, hashed=True, deep=True))


def reexport_words(state: State) -> Words | None:
    """What the plan dialog plans when it is opened, carried out without asking."""
    request = request_of(state)
    return None if request is None else request.words


def job_words(state: State) -> Words | None:
    """What does the same as the job under the cursor of Jobs."""
    record = state.record(state.job)
    return None if record is None else record.words


def layers_words(state: State) -> Words:
    """The report that Layers shows."""
    return ("layers", *_where(state))


def diff_words(state: State) -> Words | None:
    """The report that Diff shows, None while there is nothing to compare."""
    if state.pair is None:
        return None
    raw = ("--raw",) if state.raw else ()
    return ("diff", *(state.path_of(id) for id in state.pair), *raw)


def probe_words(state: State) -> Words | None:
    """The probe that the form of Probe describes, None while it has no subjects."""
    return probing.words(probing.asked(state))


def rule_words(state: State) -> Words | None:
    """The manual of the worst rule of the scheme under the cursor."""
    found = findings_of(state, state.scheme)
    return ("rule", found[0].code) if found else None


def shown_words(state: State) -> Words | None:
    """The command that shows what the present mode shows."""
    if state.mode == "layers":
        return layers_words(state)
    if state.mode == "diff":
        return diff_words(state)
    if state.mode == "probe":
        return probe_words(state)
    return job_words(state) if state.mode == "jobs" else check_words(state)


def export_words(state: State) -> Words | None:
    """The command that writes the report that would be exported."""
    if state.mode == "probe" and state.probed is not None:
        return probing.words(state.probed.asked)
    return shown_words(state)


def findings_of(state: State, scheme: str | None) -> tuple[Finding, ...]:
    """The findings of one scheme, the worst first."""
    found = state.report.findings if state.report else ()
    return tuple(finding for finding in found if scheme in finding.schemes)


# Reasons


def no_reexport(state: State) -> str | None:
    if state.options.read_only:
        return "--read-only: nothing is written, so nothing is repaired"
    if state.report is None:
        return state.problem or "there is no report yet, so nobody knows what is broken"
    writing = next((record for record in state.running if record.words[0] == "reexport"), None)
    if writing is not None:
        return (
            f"one is written at a time, and the {writing.title} is not over: wait for it (6 shows "
            "how far it is) or cancel it there (x), then press e again"
        )
    return None if state.schemes else "there is no scheme to write anew"


def no_deep(state: State) -> str | None:
    if state.report is None:
        return state.problem or "the first look is not over"
    return None if state.base_id else f"no base gives the weights: {state.report.why_no_base}"


def no_report(state: State) -> str | None:
    if state.mode == "probe":
        whole = state.probed is not None and state.probed.complete
        return None if whole else "there is no whole report yet; enter runs the probe"
    if state.mode == "jobs":
        record = state.record(state.job)
        return None if record and record.result else "there is no result of a job to write"
    shown = {"layers": state.layers, "diff": state.diff}.get(state.mode, state.report)
    return None if shown is not None else "there is no report yet"


def stoppable(state: State) -> str | None:
    """The job that would be cancelled: that of Probe there, elsewhere the one of Jobs."""
    if state.mode == "probe":
        return state.probed.job if state.probed is not None and state.probed.running else None
    record = state.record(state.job)
    return record.name if record is not None and record.runs else None


def no_cancel(state: State) -> str | None:
    return None if stoppable(state) is not None else "nothing runs that could be cancelled"


def no_export(state: State) -> str | None:
    return "--read-only: nothing is written" if state.options.read_only else no_report(state)


def no_svg(state: State) -> str | None:
    return "--read-only: nothing is written" if state.options.read_only else None


def no_command_line(state: State) -> str | None:
    return None if shown_words(state) else "no command shows this view"


def no_rule(state: State) -> str | None:
    return None if rule_words(state) else "no rule found anything in the scheme under the cursor"


def no_raw(state: State) -> str | None:
    return None if state.mode == "diff" else "only Diff compares values"


def no_mark(state: State) -> str | None:
    return None if state.mode == "sweep" else "schemes are marked in Sweep"


def no_rehash(state: State) -> str | None:
    return "the first look is not over" if state.report is None and not state.problem else None


ACTIONS: tuple[Action, ...] = (
    Action("sweep", "1", "Sweep", "The verdict and every scheme.", "Sweep", always, check_words),
    Action("layers", "2", "Layers", "Modules x schemes: dtypes against manifests.", "Layers",
           always, layers_words),
    Action("identity", "3", "Identity", "Scheme x scheme: the share of bytes that are the same.",
           "Identity", always, check_words),
    Action("diff", "4", "Diff", "Two schemes, tensor by tensor: those that are marked, else the "
           "base and the one under the cursor.", "Diff", always, diff_words),
    Action("probe", "5", "Probe", "What schemes do to outputs: KL to the reference, and the curve "
           "over coverage.", "Probe", always, probe_words),
    Action("jobs", "6", "Jobs", "Re-exports and probes that run or ran: plan, progress, log, "
           "result.", "Jobs", always, job_words),
    Action("run", "enter", "Run", "Run the probe that the form describes.", "run",
           probing.no_run, probe_words, ("probe",)),
    Action("cancel", "x", "Cancel", "Stop the probe or the re-export that runs.", "cancel",
           no_cancel, no_command, ("probe", "jobs")),
    Action("filter", "slash", "Filter", "Show only rows that match: text, dtype:, rule:, status:; "
           "! inverts.", "filter"),
    Action("next", "n", "Next fault", "The next mismatch, faulty scheme or changed tensor.",
           "fault"),
    Action("previous", "N", "Previous fault", "The one before."),
    Action("mark", "space", "Mark", "Mark the scheme: two marked ones are what Diff compares.",
           "mark", no_mark, no_command, tuple(mode for mode in MODES if mode != "probe")),
    Action("rule", "m", "Manual", "The manual of the rule that found the worst fault here.",
           "manual", no_rule, rule_words),
    Action("copy", "y", "Copy command", "Copy the command line that prints what is shown.",
           "copy", no_command_line, shown_words),
    Action("export", "o", "Export", "Write the report that is shown to a file; its suffix picks "
           "the format.", "export", no_export, export_words),
    Action("svg", "p", "Picture", "Write what is on screen to an SVG file.", "", no_svg),
    Action("reexport", "e", "Re-export", "Plan to write anew what is marked, else what is broken, "
           "else the scheme under the cursor; nothing is written before you agree.", "re-export",
           no_reexport, reexport_words),
    Action("raw", "r", "Raw values", "Compare stored codes instead of what they stand for.", "",
           no_raw),
    Action("rehash", "R", "Read again", "Read every byte again, remembered or not.", "",
           no_rehash, rehash_words),
    Action("deep", "D", "Deep check", "Recompute every quantized weight from the base from now "
           "on, or stop doing so.", "", no_deep, deep_words),
    Action("sort", "s", "Sort", "Sort by the next column.", "sort"),
    Action("reverse", "S", "Reverse", "Sort the other way round."),
    Action("theme", "t", "Theme", "Dark or light."),
    Action("palette", "colon,ctrl+p", "Palette", "Every action by its name.", "all"),
    Action("help", "question_mark", "Help", "Help for what has the focus, and every key.", "help"),
    Action("back", "escape", "Back", "One step back.", "back"),
    Action("quit", "q,ctrl+q,ctrl+c", "Quit", "Leave; nothing is changed.", "quit"),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}
