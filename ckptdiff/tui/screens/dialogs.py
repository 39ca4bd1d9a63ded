"""What opens over a screen and closes again: help, and questions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from ckptdiff.tui.actions import ACTIONS
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line, fit, wrapped
from ckptdiff.tui.widgets.form import Field
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel

if TYPE_CHECKING:
    from ckptdiff.tui.app import CkptdiffApp


class HelpPage(ModalScreen[None]):
    """Help for the widget that had the focus, then every key."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "Close", show=False, priority=True)
    ]

    def __init__(self, state: State, about: str) -> None:
        super().__init__()
        self._state, self._about = state, about

    def compose(self) -> ComposeResult:
        yield ScrollPanel(lambda width, _: help_lines(self._state, self._about, width), id="help")


def help_lines(state: State, about: str, width: int) -> list[Line]:
    """The help text; an action that is off has its reason beside it."""
    lines: list[Line] = [[("Here", "title")]]
    lines += [[(line, "")] for line in wrapped(about, width)]
    lines += [[], [("Keys", "title")]]
    for action in ACTIONS:
        keys = fit(action.key, 7)
        first, *rest = wrapped(action.help, max(20, width - 8))
        lines.append([(keys, "key"), (f" {first}", "")])
        lines += [[(" " * 8 + line, "")] for line in rest]
        if (reason := action.why_not(state)) is not None:
            lines += [
                [(" " * 8 + line, "warning")] for line in wrapped(f"off: {reason}", width - 8)
            ]
    lines += [[], [("Marks", "title")]]
    lines += [[(line, "")] for line in _MARKS]
    return lines


_MARKS = (
    "✗ error   ! warning   ? not read   ✓ nothing found",
    "● marked by you   ~ changed while you watched",
    "A ×4  four schemes have one set of weights, A",
    "!FP8  the manifest says something else than the tensor",
    "=100  every byte is the same",
)


class Confirm(ModalScreen[bool]):
    """Asks whether something is to be done that cannot be taken back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "dismiss(False)", "No", show=False, priority=True),
        Binding("enter,y", "dismiss(True)", "Yes", show=False, priority=True),
    ]

    def __init__(self, question: str, note: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._question, self._note = question, note

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Panel(self._lines)

    def _lines(self, width: int, rows: int) -> Sequence[Line]:
        note: Iterable[Line] = ([(line, "")] for line in wrapped(self._note, width))
        keys: Line = [("enter", "key"), (" yes   ", ""), ("esc", "key"), (" no", "")]
        return [*([(line, "title")] for line in wrapped(self._question, width)), *note, [], keys]


class Ask(ModalScreen[str | None]):
    """Asks for a name or a number; the answer is None when somebody thought better of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Cancel", show=False, priority=True)
    ]

    def __init__(self, question: str, note: str, value: str) -> None:
        super().__init__()
        self._question, self._note, self._value = question, note, value

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Panel(self._lines)
            yield Input(self._value, id="answer")

    def _lines(self, width: int, rows: int) -> Sequence[Line]:
        note: Iterable[Line] = ([(line, "dim")] for line in wrapped(self._note, width))
        return [[(self._question, "title")], *note]

    @on(Input.Submitted)
    def _answer(self, event: Input.Submitted) -> None:
        self.dismiss(home_spelled(event.value.strip()) or None)


def home_spelled(path: str) -> str:
    """`path` with its `~` spelled out, as a shell has it: nobody wants a file of that name, and a
    command that is copied quotes it."""
    return os.path.expanduser(path)  # noqa: PTH111 - a `Path` fails for a user who is not there


async def ask_for(
    app: CkptdiffApp, field: Field, note: str, changed: Callable[[Field, str], None]
) -> None:
    """Have a value of a form's field typed. `changed` is called with it, and may raise
    `ValueError` saying what is wrong with it."""

    def answered(value: str | None) -> None:
        if value is None:
            return
        try:
            changed(field, value)
        except ValueError as error:
            app.say(f"{field.label}: {error}", problem=True)

    await app.push_screen(Ask(field.label.capitalize(), note, field.value), answered)
