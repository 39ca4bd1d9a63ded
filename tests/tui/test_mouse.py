"""The app in the hands of somebody with a mouse."""

from __future__ import annotations

from driving import COPIED, app_of, drive, lines, press, settle, sizes
from textual.pilot import Pilot

from ckptdiff.tui.screens.dialogs import HelpPage
from ckptdiff.tui.screens.pages import SchemePage
from ckptdiff.tui.state import MODES
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import ScrollPanel


async def click_on(pilot: Pilot[None], word: str, line: int) -> None:
    """Click on the first letter of a word in a line of the screen."""
    x = lines(pilot.app)[line].index(word)
    await pilot.click(offset=(x, line % pilot.app.size.height))
    await settle(pilot)


@sizes
def test_tabs_and_keys_are_clicked(size: tuple[int, int]) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        for number, mode in enumerate(MODES, 1):
            await click_on(pilot, f"{number} {mode.capitalize()}", 0)
            assert app.state.mode == mode
        await click_on(pilot, "1 Sweep", 0)
        await click_on(pilot, "mark", -1)
        assert len(app.state.marked) == 1
        await click_on(pilot, "? help", -1)
        assert isinstance(app.screen, HelpPage)
        await press(pilot, "escape", "enter")
        assert isinstance(app.screen, SchemePage)
        await press(pilot, "slash")
        if "esc back" in lines(app)[-1]:  # which closes the screen that was clicked on
            await press(pilot, "escape")
            await click_on(pilot, "back", -1)
            assert not isinstance(app.screen, SchemePage)
        else:
            await press(pilot, "escape", "escape")
        await click_on(pilot, "copied", 0)  # where it is: nothing happens
        assert app.state.mode == "sweep"
        await pilot.click(offset=(size[0] - 1, size[1] - 1))

    drive(COPIED, scenario, size)


@sizes
def test_a_grid_is_clicked_and_wheeled(size: tuple[int, int]) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        grid = app.screen.query_one(Grid)
        assert grid.store is not None
        await pilot.click(Grid, offset=(10, 3))
        assert grid.cursor == 2
        await pilot.click(Grid, offset=(10, 4), times=2)
        await settle(pilot)
        assert isinstance(app.screen, SchemePage)
        await press(pilot, "escape")
        assert grid.cursor == 3
        status = next(place for place in grid._placed() if place.column.name == "status")
        left = 2 + sum(p.width + 1 for p in grid._placed() if p.number < status.number)
        for down in (False, True):
            await pilot.click(Grid, offset=(left + 1, 0))
            assert (grid.store.sorted_by, grid.store.descending) == ("status", down)
        await pilot.click(Grid, offset=(0, grid.size.height - 1))
        await press(pilot, "2")
        grid = app.screen.query_one(Grid)
        await pilot.click(Grid, offset=(grid.size.width - 4, 2))
        across = grid.across
        assert across > 1
        before = grid.cursor
        await pilot._post_mouse_events([_wheel(down=True)], widget=Grid, offset=(3, 3))
        assert grid.cursor == before + 3
        await pilot._post_mouse_events([_wheel(down=False)], widget=Grid, offset=(3, 3))
        assert (grid.cursor, grid.across) == (before, across)
        # A place without a row.
        await press(pilot, "slash", *"self_attn.q_proj layers.0", "enter")
        await pilot.click(Grid, offset=(3, grid.size.height - 1))
        assert grid.cursor < len(grid.store or ())

    drive(COPIED, scenario, size)


def _wheel(down: bool) -> type:
    from textual.events import MouseScrollDown, MouseScrollUp

    return MouseScrollDown if down else MouseScrollUp


def test_a_panel_is_wheeled() -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        panel = app_of(pilot).screen.query_one("#detail", ScrollPanel)
        first = panel.line_at(panel._top).text
        await pilot._post_mouse_events([_wheel(down=True)], widget="#detail", offset=(3, 3))
        assert panel._top == 3
        await pilot._post_mouse_events([_wheel(down=False)], widget="#detail", offset=(3, 3))
        assert panel.line_at(panel._top).text == first

    drive(COPIED, scenario)
