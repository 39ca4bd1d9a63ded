"""What every screen has: the lines around it, a grid that can be filtered, and a way back.

Screens draw the state that the app hands to them and keep none of it but the view: cursor,
sorting, filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.events import ScreenResume
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from ckptdiff.tui import chrome
from ckptdiff.tui.filters import count_text, parse
from ckptdiff.tui.state import State
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import Panel

if TYPE_CHECKING:
    from ckptdiff.tui.app import CkptdiffApp


# In place of a grid, where something keeps every mode from being filled.
NOTHING_YET = "nothing to show yet"


class Hears:
    """A screen that is told what comes of jobs, on top or not."""

    def on_result(self, job: str, result: object) -> None:
        """A job is over."""

    def on_failure(self, job: str, reason: str) -> None:
        """A job came to nothing."""


class Framed(Hears, Screen[None]):
    """A screen inside the lines that all of them have."""

    FIELDS: ClassVar[tuple[str, ...]] = ()
    # Actions of the table whose keys mean something of its own here.
    OWN: ClassVar[tuple[str, ...]] = ()

    _widgets = 0  # below this one, once it has them all

    @property
    def owner(self) -> CkptdiffApp:
        """The app, by its own type."""
        return cast("CkptdiffApp", self.app)

    @property
    def state(self) -> State:
        return self.owner.state

    @property
    def crumbs(self) -> Sequence[str]:
        """Where this screen is, below the root."""
        return (self.state.mode.capitalize(),)

    def compose(self) -> ComposeResult:
        yield Panel(
            lambda width, _: chrome.title(self.state, self.crumbs, width),
            id="title",
            clicked=self._title_clicked,
        )
        yield Panel(lambda width, rows: chrome.verdict(self.state, width, rows), id="verdict")
        yield Panel(lambda width, _: chrome.status(self.state, self.count, width), id="status")
        yield from self.body()
        yield Input(
            placeholder="text  " + "  ".join(f"{name}:" for name in self.FIELDS) + "  ! inverts",
            id="filter",
        )
        yield Panel(
            lambda width, _: chrome.keys(self.state, width), id="keys", clicked=self._keys_clicked
        )

    def _title_clicked(self, x: int) -> None:
        self._act(chrome.title_spots(self.state, self.crumbs, self.size.width), x)

    def _keys_clicked(self, x: int) -> None:
        self._act(chrome.key_spots(self.state, self.size.width), x)

    def _act(self, spots: Sequence[chrome.Spot], x: int) -> None:
        """Do what a click on a part of a line asks for."""
        if action := chrome.action_at(spots, x):
            # By the app: a widget cannot wait for its own screen to close.
            self.app.call_later(self.owner.perform, action)

    def body(self) -> Iterable[Widget]:
        """The widgets between the lines."""
        return ()

    def draw(self, state: State) -> None:
        """Show a new state. Called on every change, so do nothing for what is the same."""

    def refresh_frame(self) -> None:
        """Draw the lines around the body anew."""
        for name in ("title", "verdict", "status", "keys"):
            self.query_one(f"#{name}", Panel).redraw()

    def update(self, state: State) -> None:
        # While the app ends, screens lose their widgets one by one and are still told of jobs.
        if self.is_mounted and len(self.children) >= self._widgets:
            self.draw(state)
            self.refresh_frame()

    def on_mount(self) -> None:
        self._widgets = len(self.children)
        self.update(self.state)

    @on(ScreenResume)
    def _catch_up(self) -> None:
        self.update(self.state)

    # The grid and its filter

    @property
    def grid(self) -> Grid | None:
        """The grid of this screen, if it has one."""
        return next(iter(self.query(Grid)), None)

    @property
    def count(self) -> str:
        """How much of the grid the filter leaves, and what in it is not understood."""
        store = self.grid.store if self.grid is not None else None
        if store is None:
            return ""
        if store.filter.unknown:
            known = ", ".join(f"{name}:" for name in self.FIELDS)
            return f"no field {store.filter.unknown[0]}: here, but {known}"
        return count_text(len(store), store.total)

    def open_filter(self) -> None:
        box = self.query_one("#filter", Input)
        # At once, not when the loop comes to it: the next key is already on its way.
        box.display = True
        self.set_focus(box)

    def clear_filter(self) -> bool:
        """Close the filter and show every row; False when there was nothing to clear."""
        box = self.query_one("#filter", Input)
        if not box.display:
            return False
        box.value = ""
        box.display = False
        self.focus_grid()
        return True

    def focus_grid(self) -> None:
        if self.grid is not None:
            self.set_focus(self.grid)

    @on(Input.Changed, "#filter")
    def _narrow(self, event: Input.Changed) -> None:
        if self.grid is not None and self.grid.store is not None:
            self.grid.store.narrow(parse(event.value, self.FIELDS))
            self.grid.changed_view()
            self.refresh_frame()

    @on(Input.Submitted, "#filter")
    def _keep(self, event: Input.Submitted) -> None:
        if not event.value:
            self.clear_filter()
        self.focus_grid()
