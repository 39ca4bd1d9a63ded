"""A form of a few lines: each field a label and a value that arrows change.

What the fields are and what a new value means is the screen's; values that are typed are asked
for by the screen as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Size
from textual.strip import Strip

from ckptdiff.tui.text import Line, Piece, fit
from ckptdiff.tui.widgets.toned import Toned

# Fields stand side by side in columns that are at least this wide.
_COLUMN = 38
_LABEL = 12


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `value` is one of `choices`, or was typed; `text` is what is shown for it."""

    name: str
    label: str
    value: str
    text: str
    choices: tuple[str, ...] = ()
    typed: bool = False


class Form(Toned, can_focus=True):
    """Fields from top to bottom and then in the next column. In little room it scrolls."""

    HELP = (
        "A form. Up and down go from field to field, left and right change what the cursor is on, "
        "space asks for a value to be typed where that makes sense, else changes it too. A click "
        "on the field under the cursor does what space does."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, priority=True),
        Binding("down,j", "move(1)", "Down", show=False, priority=True),
        Binding("left,h", "change(-1)", "Before", show=False, priority=True),
        Binding("right,l", "change(1)", "Next", show=False, priority=True),
        Binding("space", "edit", "Change", show=False, priority=True),
    ]

    def __init__(
        self,
        fields: Callable[[], Sequence[Field]],
        *,
        changed: Callable[[Field, str], None],
        ask: Callable[[Field], Awaitable[object]],
    ) -> None:
        """`changed` is called with a field and its new value, `ask` to have one typed."""
        super().__init__(id="form")
        self._fields, self._changed, self._ask = fields, changed, ask
        self.cursor = 0

    @property
    def field(self) -> Field:
        """The field under the cursor."""
        fields = self._fields()
        return fields[min(self.cursor, len(fields) - 1)]

    def _rows(self, width: int) -> int:
        """Lines that all fields take."""
        columns = max(1, width // _COLUMN)
        return -(-len(self._fields()) // columns)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._rows(width)

    def on_resize(self, event: Resize) -> None:
        self.refresh()

    # Keys and mouse

    def action_move(self, step: int) -> None:
        self.cursor = min(max(0, self.cursor + step), len(self._fields()) - 1)
        self.refresh()

    def action_change(self, step: int) -> None:
        field = self.field
        if field.choices:
            at = field.choices.index(field.value) + step if field.value in field.choices else 0
            self._changed(field, field.choices[at % len(field.choices)])
            self.refresh()

    async def action_edit(self) -> None:
        if self.field.typed:
            await self._ask(self.field)
        else:
            self.action_change(1)

    async def on_click(self, event: Click) -> None:
        rows = self._rows(self.size.width)
        columns = -(-len(self._fields()) // rows)
        across = min(columns - 1, event.x // max(1, self.size.width // columns))
        number = across * rows + self._top(rows) + event.y
        if number >= len(self._fields()):
            return
        again, self.cursor = number == self.cursor, number
        self.refresh()
        if again:
            await self.action_edit()

    # Drawing

    def _top(self, rows: int) -> int:
        """The first line that is drawn: that of the cursor is always among them."""
        return max(0, self.cursor % rows - max(1, self.size.height) + 1)

    def render_line(self, y: int) -> Strip:
        fields, rows = self._fields(), self._rows(self.size.width)
        columns = -(-len(fields) // rows)
        # Where fields are out of sight, which of how many the cursor is on.
        place = f" {self.cursor + 1}/{len(fields)}" if y == 0 and self.size.height < rows else ""
        width = (self.size.width - len(place)) // columns
        row = y + self._top(rows)
        line: list[Piece] = []
        for number in range(row, len(fields), rows) if row < rows else ():
            line += self._field(fields[number], number == self.cursor, width)
        return self.strip([*line, (place, "dim")], self.size.width)

    def _field(self, field: Field, here: bool, width: int) -> Line:
        """One field in exactly `width` columns; the one under the cursor between marks."""
        room = max(1, width - _LABEL - 5)
        text = fit(field.text, min(room, max(1, cell_len(field.text))))
        pad = " " * max(0, room - cell_len(text))
        label = (f" {fit(field.label, _LABEL)}", "dim")
        if not here:
            fixed = not (field.choices or field.typed)
            return [label, (f"  {text}  {pad}", "dim" if fixed else "")]
        left, right = ("‹ ", " ›") if field.choices else ("  ", "  ")
        tone = "cell" if self.has_focus else "blur"
        return [label, (f"{left}{text}{right}", tone), (pad, "")]
