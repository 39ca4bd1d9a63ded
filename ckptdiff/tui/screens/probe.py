"""Probe: what schemes do to the next token, computed in a child process while somebody watches.

The form above says what enter will run; rows, verdict and curve below are of the probe that
was run last, and fill while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from ckptdiff.tui.probe_view import curve_lines, detail_lines, form_fields, probe_store
from ckptdiff.tui.probing import asked, form_with
from ckptdiff.tui.screens.dialogs import ask_for
from ckptdiff.tui.screens.mode import NOTHING_YET, Framed
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line
from ckptdiff.tui.widgets.form import Field, Form
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel

_NOTES = {
    "prompts": "A .txt with a prompt a line, or a .jsonl with text, messages or images. The "
    "built-in ones come back with an arrow key.",
    "limit": "Only the first so many prompts.",
    "device": "auto, cpu, cuda (all GPUs), or a list such as cuda:0,cuda:1.",
}


class ProbeScreen(Framed):
    """Mode 5: a form, a row a scheme, the numbers of one, and the curve over coverage."""

    FIELDS: ClassVar[tuple[str, ...]] = ("status",)

    def __init__(self) -> None:
        super().__init__()
        self._shown: object = None
        self._at: str | None = None

    def body(self) -> Iterable[Widget]:
        yield Form(lambda: form_fields(self.state), changed=self._changed, ask=self._ask)
        yield Grid(moved=self._moved, placeholder="reading headers …")
        with Horizontal(id="below"):
            yield ScrollPanel(self._detail, id="detail")
            yield Panel(self._chart, id="side")

    @property
    def count(self) -> str:
        """How many schemes are done, or that the form says something else by now."""
        probed = self.state.probed
        if probed is None:
            return super().count
        done = len(probed.report.results) + len(probed.report.unread) if probed.report else 0
        if probed.running:
            return f"{done:,} of {len(probed.names):,} schemes"
        if asked(self.state) != probed.asked:
            return "the form was changed: enter runs it"
        return super().count

    def draw(self, state: State) -> None:
        self.query_one(Form).refresh()
        own = state.probed.job if state.probed is not None else ""
        doing = [work for work in state.work if work.job == own]
        now = (state.probed, state.report, state.marked, state.form, doing)
        if now == self._shown:
            return
        if state.report is None:
            if state.stuck:
                self.query_one(Grid).show(None, NOTHING_YET)
            return
        self._shown = now
        grid = self.query_one(Grid)
        rows = len(grid.store or ())
        grid.show(probe_store(state), "no scheme to compare")
        if len(grid.store or ()) != rows:
            grid.refresh(layout=True)
        self.query_one("#side", Panel).redraw()

    def _moved(self) -> None:
        detail, here = self.query_one("#detail", Panel), self.query_one(Grid).key
        if here == self._at:  # numbers came in: what is read stays where it is read
            detail.redraw()
        else:
            self._at = here
            detail.show(self._detail)
        self.query_one("#side", Panel).redraw()

    def _detail(self, width: int, rows: int) -> Sequence[Line]:
        return detail_lines(self.state, self.query_one(Grid).key, width)

    def _chart(self, width: int, rows: int) -> Sequence[Line]:
        return curve_lines(self.state, self.query_one(Grid).key, width, rows)

    # The form

    def _changed(self, field: Field, value: str) -> None:
        form = form_with(self.state.form, field.name, value)
        self.owner.set_state(replace(self.state, form=form))

    async def _ask(self, field: Field) -> None:
        if field.name == "schemes":
            self.owner.say("mark schemes in Sweep (space) to probe only those")
            return
        await ask_for(self.owner, field, _NOTES[field.name], self._changed)
