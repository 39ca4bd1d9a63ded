"""Panels: lines that somebody builds for the width at hand, as they are or scrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Size
from textual.strip import Strip

from ckptdiff.tui.text import Line
from ckptdiff.tui.widgets.toned import Toned

# (columns, rows) -> lines. Rows are what can be seen; more lines than that may come.
Build = Callable[[int, int], Sequence[Line]]


def nothing(columns: int, rows: int) -> Sequence[Line]:
    """The panel of which nothing is known yet."""
    return ()


class Panel(Toned):
    """Shows what `build` gives, clipped. With `height: auto` it is as high as its lines."""

    def __init__(
        self,
        build: Build = nothing,
        *,
        id: str | None = None,
        clicked: Callable[[int], None] | None = None,
    ) -> None:
        """`clicked` is called with the column of a click."""
        super().__init__(id=id)
        self._build, self._clicked = build, clicked
        self._lines: Sequence[Line] = ()
        self._built_for = Size(-1, -1)

    def show(self, build: Build) -> None:
        """Draw something else from now on."""
        self._build = build
        self.redraw()

    def redraw(self) -> None:
        """What the lines are made of changed."""
        self._built_for = Size(-1, -1)
        self.refresh(layout=self.styles.is_auto_height)

    @property
    def lines(self) -> Sequence[Line]:
        """The lines for the present size."""
        if self._built_for != self.size:
            self._lines = self._build(self.size.width, self.size.height)
            self._built_for = self.size
        return self._lines

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._build(width, 0)))

    def on_click(self, event: Click) -> None:
        if self._clicked is not None:
            self._clicked(event.x)

    def render_line(self, y: int) -> Strip:
        return self.line_at(y)

    def line_at(self, number: int) -> Strip:
        lines = self.lines
        line = lines[number] if 0 <= number < len(lines) else ()
        return self.strip(line, self.size.width)


class ScrollPanel(Panel, can_focus=True):
    """A panel that can be longer than what is seen of it."""

    HELP = "Details of what the cursor is on. Arrows, page keys and the wheel scroll."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, priority=True),
        Binding("down,j", "move(1)", "Down", show=False, priority=True),
        Binding("pageup", "page(-1)", "Page up", show=False, priority=True),
        Binding("pagedown", "page(1)", "Page down", show=False, priority=True),
        Binding("home,g", "move(-1000000)", "Start", show=False, priority=True),
        Binding("end,G", "move(1000000)", "End", show=False, priority=True),
    ]

    def __init__(self, build: Build = nothing, *, id: str | None = None) -> None:
        super().__init__(build, id=id)
        self._top = 0

    def show(self, build: Build) -> None:
        self._top = 0
        super().show(build)

    def render_line(self, y: int) -> Strip:
        hidden = len(self.lines) - self._top - self.size.height
        if y == self.size.height - 1 and hidden > 0:
            return self.strip([(f"  … {hidden + 1:,} more lines", "dim")], self.size.width)
        return self.line_at(self._top + y)

    def action_move(self, lines: int) -> None:
        last = max(0, len(self.lines) - self.size.height)
        self._top = min(max(0, self._top + lines), last)
        self.refresh()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self.size.height - 1))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self.action_move(3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self.action_move(-3)

    def on_resize(self, event: Resize) -> None:
        self.action_move(0)


class LogPanel(ScrollPanel):
    """A scrolled panel that stays at its end while lines come in, unless somebody left it."""

    HELP = "What the job says. Arrows, page keys and the wheel scroll; at its end it follows."

    def redraw(self) -> None:
        followed = self._top >= len(self._lines) - self.size.height
        super().redraw()
        if followed:
            self.action_move(len(self.lines))

    def show(self, build: Build) -> None:
        super().show(build)
        self.action_move(len(self.lines))

    def on_resize(self, event: Resize) -> None:
        self.action_move(len(self.lines))
