"""The plan of a re-export over the screen that it was asked for from: look, choose, agree or not.

Nothing is written here. What was agreed to is the answer, which the app carries out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from ckptdiff.records.plan import ENGINES, Engine
from ckptdiff.report.style import plural
from ckptdiff.tui.actions import command_line
from ckptdiff.tui.plan_view import head_line, plan_lines
from ckptdiff.tui.reexports import Answer, Request, planned
from ckptdiff.tui.screens.dialogs import Ask
from ckptdiff.tui.screens.mode import Hears
from ckptdiff.tui.text import Line, Piece, texts
from ckptdiff.tui.widgets.form import Field, Form
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel
from ckptdiff.tui.work import dropped

if TYPE_CHECKING:
    from ckptdiff.tui.app import CkptdiffApp

JOB = "plan"
_NOTES = {
    "donor": "A checkpoint of the same family that holds the modules quantized; several are "
    "separated by spaces, quoted as in a shell. An arrow key brings the family back.",
    "calib": "Rows for a model that is run: .txt, .jsonl with text, messages or images, COCO "
    "captions as .json. An arrow key brings the built-in ones back.",
}
_BESIDE, _IN_PLACE = "beside", "in place"


class PlanDialog(Hears, ModalScreen[Answer | None]):
    """Shows a plan, plans anew when something else is chosen. The answer is the plan that was
    agreed to, None when somebody thought better of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Back", show=False, priority=True),
        Binding("enter", "agree", "Write", show=False, priority=True),
        Binding("y", "copy", "Copy command", show=False, priority=True),
        Binding("pageup", "page(-1)", "Page up", show=False, priority=True),
        Binding("pagedown", "page(1)", "Page down", show=False, priority=True),
    ]

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request
        self.answer: Answer | None = None
        self._defect = ""

    @property
    def owner(self) -> CkptdiffApp:
        return cast("CkptdiffApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Panel(self._head, id="head")
            yield Form(lambda: form_fields(self.request), changed=self._changed, ask=self._ask)
            yield ScrollPanel(self._lines, id="plans")
            yield Panel(self._keys, id="choice")

    def on_mount(self) -> None:
        self._plan()

    # The plan

    def _plan(self) -> None:
        self.answer, self._defect = None, ""
        request = self.request
        self.owner.bridge.start(JOB, lambda sink, cancel: planned(request, sink, cancel))
        self._redraw(top=True)

    def on_result(self, job: str, result: object) -> None:
        if isinstance(result, Answer) and result.request == self.request:
            self.answer = result
            self._redraw(top=True)

    def on_failure(self, job: str, reason: str) -> None:
        if job == JOB:
            self._defect = reason
            self._redraw(top=True)

    def _redraw(self, *, top: bool = False) -> None:
        for panel in self.query(Panel):
            panel.redraw()
        if top:
            self.query_one("#plans", ScrollPanel).show(self._lines)
        self.query_one(Form).refresh()

    # What is chosen

    def _changed(self, field: Field, value: str) -> None:
        changed = chosen(self.request, field.name, value)
        if changed != self.request:
            self.request = changed
            self._plan()

    async def _ask(self, field: Field) -> None:
        def answered(value: str | None) -> None:
            if value is None:
                return
            try:
                self._changed(field, value)
            except ValueError as error:
                self.owner.say(f"{field.label}: {error}", problem=True)

        await self.app.push_screen(
            Ask(field.label.capitalize(), _NOTES[field.name], field.value), answered
        )

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys are ours as long as no question lies over the plan."""
        return self.app.screen is self

    def action_leave(self) -> None:
        self.owner.bridge.cancel(JOB)
        self.owner.set_state(dropped(self.owner.state, JOB))
        self.dismiss(None)

    def action_agree(self) -> None:
        if self.answer is not None and self.answer.possible:
            self.dismiss(self.answer)
        else:
            self.owner.say(f"not written: {self._why_not()}", problem=True)

    def _why_not(self) -> str:
        if self._defect or (self.answer is not None and self.answer.planned is None):
            return "there is no plan"
        return "the plan is not there yet" if self.answer is None else "the plan lacks something"

    def action_copy(self) -> None:
        line = command_line(self.request.words)
        self.app.copy_to_clipboard(line)
        self.owner.say(f"copied: {line}")

    def action_page(self, pages: int) -> None:
        self.query_one("#plans", ScrollPanel).action_page(pages)

    # What is shown

    def _head(self, width: int, rows: int) -> Sequence[Line]:
        what = f"Re-export of {plural(len(self.request.schemes), 'scheme')}"
        return [[(what, "title"), ("  nothing is written before you agree", "dim")]]

    def _lines(self, width: int, rows: int) -> Sequence[Line]:
        problem = self._defect or (self.answer.problem if self.answer else "")
        if problem:
            first, *rest = problem.split("\n")
            lines = texts(f"✗ {first}", width, "error")
            return lines + [line for text in rest for line in texts(text, width, "accent", "  ")]
        if self.answer is None or self.answer.planned is None:
            return [[("… planning", "accent")]]
        report = self.answer.planned.report
        return [head_line(report), *plan_lines(report, width)]

    def _keys(self, width: int, rows: int) -> Sequence[Line]:
        able = self.answer is not None and self.answer.possible
        line: list[Piece] = [
            (" enter", "key" if able else "dim"),
            (" write ", "" if able else "dim"),
        ]
        for key, what in (("esc", "back"), ("arrows", "choose"), ("space", "type"),
                          ("pgdn", "more"), ("y", "copy")):  # fmt: skip
            line += [(f" {key}", "key"), (f" {what} ", "")]
        return [line]


def form_fields(request: Request) -> list[Field]:
    """What can be chosen about a re-export."""
    donors = " ".join(map(shlex.quote, request.donors))
    calib = request.calib or "built-in rows"
    place = _IN_PLACE if request.in_place else _BESIDE
    where = "in its place" if request.in_place else "beside, as _v2"
    return [
        Field("engine", "engine", request.engine, request.engine, ENGINES),
        Field("place", "write", place, where, (_BESIDE, _IN_PLACE)),
        Field("donor", "donor", donors, donors or "the family", ("",), typed=True),
        Field("calib", "calibration", request.calib,
              calib if request.runs_model else "no model is run", ("",), typed=True),
    ]  # fmt: skip


def chosen(request: Request, name: str, value: str) -> Request:
    """The request with another value. Raises `ValueError` for donors that are quoted wrongly."""
    match name:
        case "engine":
            return replace(request, engine=cast("Engine", value))
        case "place":
            return replace(request, in_place=value == _IN_PLACE)
        case "donor":
            return replace(request, donors=tuple(shlex.split(value)))
    return replace(request, calib=value)
