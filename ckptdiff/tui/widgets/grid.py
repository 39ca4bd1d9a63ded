"""A grid over a column store that draws the rows in view and no others.

Rows or cells have the cursor. Sorting and filtering are the store's; where the rows come from
and what happens when one is opened are the screen's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from itertools import chain
from typing import ClassVar, NamedTuple

from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Size
from textual.strip import Strip

from ckptdiff.tui.store import Column, Store
from ckptdiff.tui.text import Line, Piece, fit, texts
from ckptdiff.tui.widgets.toned import Toned

# Columns that say more than they must are shown from this width on.
WIDE = 110
_GUTTER = 2
_BAR = "▐"


class Placed(NamedTuple):
    """A column where it is drawn: its number in the store and its width."""

    number: int
    column: Column
    width: int


class Grid(Toned, can_focus=True):
    """Rows of a `Store` under a header. `cells`: the cursor is on a cell, not on a row."""

    HELP = (
        "A grid. Arrows or h j k l move, page keys, home and end jump; enter opens what the "
        "cursor is on, s sorts by the next column and S the other way round. A click on a "
        "header sorts by it. Filters (/) hide rows and never change what is judged."
    )
    # With priority the app takes keys one after the other, instead of sending them around.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, priority=True),
        Binding("down,j", "move(1)", "Down", show=False, priority=True),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, priority=True),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, priority=True),
        Binding("home,g", "jump(0)", "First", show=False, priority=True),
        Binding("end,G", "jump(-1)", "Last", show=False, priority=True),
        Binding("left,h", "sideways(-1)", "Left", show=False, priority=True),
        Binding("right,l", "sideways(1)", "Right", show=False, priority=True),
        Binding("enter", "open", "Open", show=False, priority=True),
    ]

    def __init__(
        self,
        *,
        moved: Callable[[], None] = lambda: None,
        opened: Callable[[], Awaitable[None]] | None = None,
        cells: bool = False,
        placeholder: str = "",
    ) -> None:
        """`moved` is called when the cursor is on something else, `opened` when somebody wants
        to see what it is on: called, not posted, so that quick keys keep their order."""
        super().__init__(id="grid")
        self._moved, self._opened = moved, opened
        self._layout: tuple[Store | None, tuple[int, int], list[Placed]] = (None, (0, 0), [])
        self.store: Store | None = None
        self.cells = cells
        self.placeholder = placeholder
        self.cursor = 0  # a position in the view
        self.across = 1 if cells else 0  # a number of a column
        self.top = 0
        self.first = 1  # the first column after the frozen one that is drawn
        self.marked: Collection[str] = ()
        self.changed: Collection[str] = ()

    # What is shown

    def show(self, store: Store | None, placeholder: str = "") -> None:
        """Show other data; the cursor stays on the row with the same key, and sorting and
        filter stay too."""
        key, old = self.key, self.store
        if store is not None and old is not None and store is not old:
            if old.sorted_by in [column.name for column in store.columns]:
                store.sort(old.sorted_by, old.descending)
            store.narrow(old.filter)
        self.store = store
        self.placeholder = placeholder
        place = store.row_of(key) if store is not None and key is not None else None
        self.cursor = self.cursor if place is None else place
        self._settle()

    @property
    def row(self) -> int | None:
        """The row of the store under the cursor."""
        if self.store is None or not 0 <= self.cursor < len(self.store):
            return None
        return self.store.view[self.cursor]

    @property
    def key(self) -> str | None:
        """The key of the row under the cursor."""
        row = self.row
        return None if row is None or self.store is None else self.store.keys[row]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1 + (len(self.store or ()) or len(self._said(width)))

    @property
    def visible_rows(self) -> int:
        return max(1, self.size.height - 1)

    def changed_view(self) -> None:
        """The store was sorted or narrowed: show it from where the cursor still makes sense."""
        self._settle()

    def move_to(self, position: int, across: int | None = None) -> None:
        """Put the cursor on a position of the view, and on a column."""
        self.cursor = position
        if across is not None:
            self.across = across
        self._settle()

    def next_fault(self, step: int) -> bool:
        """Move to the next (or previous) faulty row or cell, around the end; False if none."""
        store = self.store
        if store is None or not len(store):
            return False
        judges = [(n, c.faults) for n, c in enumerate(store.columns) if c.faults]
        if not judges:
            return False
        if not self.cells:
            judges = judges[:1]
        faulty = frozenset[int]().union(*(faults for _, faults in judges))
        count = len(store)
        # From the rest of this row around all others to its beginning.
        for distance in range(count + 1):
            position = (self.cursor + step * distance) % count
            row = store.view[position]
            if row not in faulty:
                continue
            found = [number for number, faults in judges if row in faults]
            if self.cells and distance in (0, count):
                ahead = distance == 0
                found = [n for n in found if ((n - self.across) * step > 0) is ahead]
            elif distance == 0:
                continue
            if found:
                self.move_to(position, found[0 if step > 0 else -1] if self.cells else None)
                return True
        return False

    # Keys and mouse

    def action_move(self, rows: int) -> None:
        self.move_to(self.cursor + rows)

    def action_page(self, pages: int) -> None:
        self.top += pages * (self.visible_rows - 1)
        self.move_to(self.cursor + pages * (self.visible_rows - 1))

    def action_jump(self, position: int) -> None:
        self.move_to(len(self.store or ()) - 1 if position < 0 else position)

    def action_sideways(self, columns: int) -> None:
        if self.store is None:
            return
        if self.cells:
            self.move_to(self.cursor, self.across + columns)
        else:
            self.first = self.first + columns
            self._settle()

    async def action_open(self) -> None:
        if self.row is not None and self._opened is not None:
            await self._opened()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self.action_move(3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self.action_move(-3)

    def on_resize(self, event: Resize) -> None:
        self._settle()

    async def on_click(self, event: Click) -> None:
        placed = self._placed()
        left, number = _GUTTER, None
        for place in placed:
            if left <= event.x < left + place.width:
                number = place.number
            left += place.width + 1
        if event.y == 0:
            if number is not None and self.store is not None:
                column = self.store.columns[number]
                again = self.store.sorted_by == column.name
                self.store.sort(column.name, again and not self.store.descending)
                self._settle()
            return
        known = number is not None and number >= 1
        self.move_to(self.top + event.y - 1, number if self.cells and known else None)
        if event.chain == 2:
            await self.action_open()

    def sort_next(self) -> None:
        """Sort by the column after the one that is sorted by; after the last, as they came.
        Columns that this screen is too narrow for are passed over."""
        if self.store is None:
            return
        wide = self.size.width >= WIDE
        names = [column.name for column in self.store.columns if wide or not column.wide_only]
        at = names.index(self.store.sorted_by) + 1 if self.store.sorted_by in names else 0
        self.store.sort(names[at] if at < len(names) else None)
        self._settle()

    def sort_reversed(self) -> None:
        if self.store is not None:
            self.store.sort(
                self.store.sorted_by or self.store.columns[0].name, not self.store.descending
            )
            self._settle()

    def _settle(self) -> None:
        """Keep the cursor inside, and what it is on in view."""
        count = len(self.store) if self.store is not None else 0
        last = len(self.store.columns) - 1 if self.store is not None else 0
        self.cursor = min(max(0, self.cursor), max(0, count - 1))
        if self.cells:
            self.across = min(max(1, self.across), max(1, last))
        rows = self.visible_rows
        self.top = min(max(self.top, self.cursor - rows + 1), self.cursor, max(0, count - rows))
        self.top = max(0, self.top)
        self.first = min(max(1, self.first), max(1, last))
        if self.cells and self.size.width and self.store is not None:
            self.first = min(self.first, self.across)
            known = self.across < len(self.store.columns)
            if known and all(place.number != self.across for place in self._placed()):
                self.first = self._first_with(self.store, self.across)
        self.refresh()
        self._moved()

    def _first_with(self, store: Store, number: int) -> int:
        """The first column to draw so that column `number` is the last that fits."""
        columns = store.columns
        room = self._room - self._least(columns[0]) - 1
        first = number
        for at in range(number, 0, -1):
            if self._hidden(columns[at]):
                continue
            room -= self._least(columns[at]) + 1
            if room < 0:
                break
            first = at
        return first

    # Drawing

    @property
    def _room(self) -> int:
        """Columns of the screen that there are for columns of the store."""
        return self.size.width - _GUTTER - 1

    def _least(self, column: Column) -> int:
        """What a column must have: of a name only so much that there is room for numbers."""
        if column.width is not None:
            return column.width
        return min(column.least, max(8, self._room // 2))

    def _hidden(self, column: Column) -> bool:
        return column.wide_only and self.size.width < WIDE

    def _placed(self) -> list[Placed]:
        """The columns that are drawn, worked out anew when something they depend on changes."""
        if self.store is None:
            return []
        store, now, placed = self._layout
        # The store itself is kept: one that is gone may have left its id to the next.
        if store is not self.store or now != (self.size.width, self.first):
            placed = self._place(self.store)
            self._layout = (self.store, (self.size.width, self.first), placed)
        return placed

    def _place(self, store: Store) -> list[Placed]:
        """The columns that fit, the first one always, the others from `first` on."""
        room = self._room
        taken: list[tuple[int, Column]] = []
        used = 0
        for number in chain([0], range(max(1, self.first), len(store.columns))):
            column = store.columns[number]
            if self._hidden(column):
                continue
            needed = self._least(column) + 1
            if taken and used + needed > room:
                break
            taken.append((number, column))
            used += needed
        flexible = sum(column.width is None for _, column in taken)
        spare = max(0, room - used)
        placed = []
        for number, column in taken:
            width = column.width
            if width is None:
                share = spare // flexible
                # A name that is short leaves the rest of the line empty, not its neighbours far.
                width = min(self._least(column) + share, max(column.most, self._least(column)))
                spare, flexible = spare - (width - self._least(column)), flexible - 1
            placed.append(Placed(number, column, width))
        return placed

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        store = self.store
        if store is None or not len(store):
            said = self._said(width)
            return self.strip(said[y - 1] if 0 < y <= len(said) else [], width)
        if y == 0:
            return self.strip(self._header(store), width, "header")
        position = self.top + y - 1
        if position >= len(store):
            return self.strip([], width)
        on_row = position == self.cursor
        line = self._cells(store, store.view[position], on_row)
        under = ("cursor" if self.has_focus else "blur") if on_row else ""
        return self.strip(line, width - 1, under, [self._scrollbar(y)])

    def _said(self, width: int) -> list[Line]:
        """Why there is no row."""
        none = self.store is None or not self.store.total
        return texts(self.placeholder if none else "no row matches", width, "dim", "  ")

    def _header(self, store: Store) -> Line:
        line: list[Piece] = [(" " * _GUTTER, "")]
        for place in self._placed():
            arrow = ""
            if store.sorted_by == place.column.name:
                arrow = "▼" if store.descending else "▲"
            title = fit(place.column.title, place.width - len(arrow), place.column.align)
            here = self.cells and place.number == self.across
            line.append((f"{title}{arrow} ", "active" if here else ""))
        return line

    def _cells(self, store: Store, row: int, on_row: bool) -> Line:
        key = store.keys[row]
        mark = ("●", "mark") if key in self.marked else (" ", "")
        line: list[Piece] = [mark, ("~", "warning") if key in self.changed else (" ", "")]
        for place in self._placed():
            column = place.column
            if self.cells and on_row and place.number == self.across:
                text = "".join(text for text, _ in cell_of(column, row, place.width))
                line.append((text, "cell"))
            else:
                line += cell_of(column, row, place.width)
            line.append((" ", ""))
        return line

    def _scrollbar(self, y: int) -> Piece:
        count, rows = len(self.store or ()), self.visible_rows
        if count <= rows:
            return " ", ""
        length = max(1, rows * rows // count)
        start = (rows - length) * self.top // max(1, count - rows)
        return (_BAR, "accent") if start <= y - 1 < start + length else ("│", "dim")


def cell_of(column: Column, row: int, width: int) -> Line:
    """One cell in exactly `width` columns."""
    if column.paint is not None:
        return column.paint(row, width)
    value = column.values[row]
    text = "-" if value is None else column.text(value)
    tone = column.tone(row) if column.tone is not None else ""
    return [(fit(text, width, column.align), tone)]
