"""The plan of a re-export over the screen that it was asked for from: look, choose, agree or not.

Nothing is written here. What was agreed to is the answer, which the app carries out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast, get_args

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from ckptdiff.records.export import ExportOptions, Score
from ckptdiff.records.plan import ENGINES
from ckptdiff.records.wording import plural
from ckptdiff.tui.actions import command_line
from ckptdiff.tui.plan_view import head_lines, plan_lines
from ckptdiff.tui.reexports import Answer, Request, planned
from ckptdiff.tui.screens.dialogs import ask_for, home_spelled
from ckptdiff.tui.screens.mode import Hears
from ckptdiff.tui.text import Line, Piece, texts, whole_number
from ckptdiff.tui.widgets.form import Field, Form
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel
from ckptdiff.tui.work import dropped

if TYPE_CHECKING:
    from ckptdiff.tui.app import CkptdiffApp

JOB = "plan"
_NOTES = {
    "place": "Below which directory: what is written there keeps the names of the schemes (--out). "
    "An arrow key brings beside and in its place back.",
    "donor": "A checkpoint of the same family that holds the modules quantized; several are "
    "separated by spaces, quoted as in a shell. An arrow key brings the family back.",
    "preset": "One of ModelOpt's, such as FP8_DEFAULT_CFG or NVFP4_DEFAULT_CFG, in place of what "
    "the scheme's config says. A name that it does not know brings a list of those that it has.",
    "calib": "Rows for a model that is run: .txt, .jsonl with text, messages or images, COCO "
    "captions as .json. An arrow key brings the built-in ones back.",
    "calib_samples": "How many of the rows are used at most (--calib-samples). An arrow key "
    "brings the default back.",
    "calib_length": "How many tokens of a row are used at most (--calib-length). An arrow key "
    "brings the default back.",
    "seed": "Any whole number; the same one draws the same rows (--seed). An arrow key brings the "
    "default back.",
}
_KEYS = (("enter", "write"), ("esc", "back"), ("y", "copy"), ("arrows", "choose"),
         ("space", "type"), ("pgdn", "more"))  # fmt: skip
# As values of a field, beside directories: "" and an option are none.
_BESIDE, _IN_PLACE = "", "--in-place"
# Whether code that a model brings with it is run (--trust-remote-code).
_CODE = ("never run", "run")


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
        self.query_one(Form).refresh(layout=True)  # an engine may have more fields

    # What is chosen

    def _changed(self, field: Field, value: str) -> None:
        changed = chosen(self.request, field.name, value)
        if changed != self.request:
            self.request = changed
            self._plan()

    async def _ask(self, field: Field) -> None:
        value = suggested(self.request, field)
        await ask_for(self.owner, replace(field, value=value), _NOTES[field.name], self._changed)

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
        note = "  nothing is written before you agree"
        return [[(what, "title"), (note if len(what) + len(note) <= width else "", "dim")]]

    def _lines(self, width: int, rows: int) -> Sequence[Line]:
        problem = self._defect or (self.answer.problem if self.answer else "")
        if problem:
            first, *rest = problem.split("\n")
            lines = texts(f"✗ {first}", width, "error")
            return lines + [line for text in rest for line in texts(text, width, "accent", "  ")]
        if self.answer is None or self.answer.planned is None:
            return [[("… planning", "accent")]]
        report = self.answer.planned.report
        return [*head_lines(report, width), *plan_lines(report, width)]

    def _keys(self, width: int, rows: int) -> Sequence[Line]:
        able = self.answer is not None and self.answer.possible
        line: list[Piece] = []
        for key, what in _KEYS:
            width -= len(key) + len(what) + 3
            if width < 0:
                break
            off = key == "enter" and not able
            line += [(f" {key}", "dim" if off else "key"), (f" {what} ", "dim" if off else "")]
        return [line]


def form_fields(request: Request) -> list[Field]:
    """What can be chosen about a re-export; what the engine has no use for says so."""
    donors = " ".join(map(shlex.quote, request.donors))
    place = _IN_PLACE if request.in_place else request.out
    where = {_BESIDE: "beside, as _v2", _IN_PLACE: "in its place"}.get(place, f"below {place}")
    code = _CODE[request.trust_remote_code]
    fields = [
        Field("engine", "engine", request.engine, request.engine, ENGINES),
        Field("place", "write", place, where, (_BESIDE, _IN_PLACE), typed=True),
        Field("donor", "donor", donors, donors or "the family", ("",), typed=True),
        Field("preset", "preset", request.preset, request.preset or "the scheme's own",
              ("",), typed=True),
        Field("calib", "calibration", request.calib, request.calib or "built-in rows",
              ("",), typed=True),
        Field("score", "score", request.score, request.score, get_args(Score)),
    ]  # fmt: skip
    if request.is_tuned:
        fields += [
            _number(request, "calib_samples", "rows", "at most {}"),
            _number(request, "calib_length", "tokens", "at most {} of a row"),
            _number(request, "seed", "seed", "{}"),
            Field("trust_remote_code", "own code", code, code, _CODE),
        ]
    idle = {} if request.searches else {"score": "for autoquant alone"}
    if not request.runs_model:
        idle = {field.name: "no model is run" for field in fields[3:]} | idle
    return [
        Field(field.name, field.label, "", idle[field.name]) if field.name in idle else field
        for field in fields
    ]


def _number(request: Request, name: str, label: str, text: str) -> Field:
    """A field for a number that has a default."""
    value = getattr(request, name)
    number = getattr(ExportOptions(), name) if value is None else value
    typed = "" if value is None else str(value)
    return Field(name, label, typed, text.format(number), ("",), typed=True)


def chosen(request: Request, name: str, value: str) -> Request:
    """The request with another value. Raises `ValueError` for donors that are quoted wrongly and
    numbers that are none."""
    match name:
        case "place":
            in_place = value == _IN_PLACE
            return request._replace(in_place=in_place, out="" if in_place else value)
        case "donor":
            return request._replace(donors=tuple(map(home_spelled, shlex.split(value))))
        case "calib_samples" | "calib_length":
            return request._replace(**{name: whole_number(value, 1)})  # type: ignore[arg-type]
        case "seed":
            return request._replace(seed=whole_number(value))
        case "trust_remote_code":
            return request._replace(trust_remote_code=value == _CODE[True])
    return request._replace(**{name: value})  # type: ignore[arg-type]


def suggested(request: Request, field: Field) -> str:
    """What a question for a value begins with: the value, and for a directory that is not named
    yet one beside the sweep."""
    if field.name != "place":
        return field.value
    sweep = Path(request.schemes[0]).parent
    return request.out or normpath(sweep / ".." / f"{sweep.absolute().name}_v2")
