"""Every key and the palette, on a small and on a large screen, without a terminal."""

from __future__ import annotations

import pytest
from driving import (
    COPIED,
    WIDE,
    Play,
    lines,
    press,
    run,
    screen_text,
    sizes,
    until,
)
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.tui.actions import ACTIONS, BY_ID, command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.palette import title
from ckptdiff.tui.screens.dialogs import Ask, HelpPage
from ckptdiff.tui.screens.pages import RulePage
from ckptdiff.tui.screens.replan import PlanDialog
from ckptdiff.tui.screens.sweep import SweepScreen
from ckptdiff.tui.state import MODES
from ckptdiff.tui.widgets.grid import Grid

# Every row of the table has a test below: what its key does.


async def opens_filter(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "2", "slash", *"up_proj status:mismatch !layers.0")
    grid = app.screen.query_one(Grid)
    assert grid.store is not None
    shown = [grid.store.keys[row] for row in grid.store.view]
    assert shown
    assert all("up_proj" in name and "layers.0" not in name for name in shown)
    assert f"{len(shown)} of 49" in screen_text(app)
    await press(pilot, "enter")
    assert app.focused is grid
    await press(pilot, "escape")
    assert "49 of 49" in screen_text(app)


async def finds_faults(pilot: Pilot[None], app: CkptdiffApp) -> None:
    before = app.state.scheme
    await press(pilot, "n")
    assert app.state.scheme != before
    await press(pilot, "N")
    assert app.state.scheme == before


async def marks(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "space")
    assert app.state.marked == (app.state.schemes[0].id,)
    await press(pilot, "k", "space")
    assert app.state.marked == ()
    await press(pilot, "2", "space")
    assert app.state.marked == ()


async def shows_the_manual(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "m")
    assert isinstance(app.screen, RulePage)
    assert "CK501 identical-weights" in screen_text(app)


async def copies(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "y")
    assert app.clipboard == command_line(("check", app.state.options.root))
    assert "copied: ckptdiff check" in screen_text(app)


async def asks_where_to_export(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "o")
    assert isinstance(app.screen, Ask)
    await press(pilot, "escape")
    assert not isinstance(app.screen, Ask)


async def asks_where_to_draw(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "p")
    assert isinstance(app.screen, Ask)
    await press(pilot, "escape")


async def plans_a_repair(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "e")
    assert isinstance(app.screen, PlanDialog)
    assert "Re-export of 4 schemes" in screen_text(app)
    await press(pilot, "escape")
    assert isinstance(app.screen, SweepScreen)
    assert app.state.jobs == ()


async def recomputes(pilot: Pilot[None], app: CkptdiffApp) -> None:
    report = app.state.report
    assert report is not None
    assert not app.state.deep
    await press(pilot, "D")
    assert app.state.deep
    assert app.state.report == api.check(app.state.options.root, deep=True)
    assert all(row.proof is not None for row in app.state.schemes)
    await press(pilot, "y")
    assert app.clipboard == command_line(("check", app.state.options.root, "--deep"))
    await press(pilot, "tab", "pagedown", "D")
    assert not app.state.deep
    assert app.state.report == report


async def only_diff_is_raw(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "r")
    assert not app.state.raw


async def reads_again(pilot: Pilot[None], app: CkptdiffApp) -> None:
    before = app.state.report
    await press(pilot, "R")
    assert app.state.report is not before
    assert app.state.report == before
    assert app.state.hashed


async def sorts(pilot: Pilot[None], app: CkptdiffApp) -> None:
    grid = app.screen.query_one(Grid)
    assert grid.store is not None
    await press(pilot, "s")
    assert grid.store.sorted_by == "scheme"
    assert "▲" in screen_text(app)
    await press(pilot, "S")
    assert grid.store.view == [3, 2, 1, 0]
    assert "▼" in screen_text(app)
    for _ in grid.store.columns:  # only those that are shown at this width take part
        if grid.store.sorted_by is not None:
            await press(pilot, "s")
    assert grid.store.sorted_by is None
    assert grid.store.view == [0, 1, 2, 3]


async def changes_the_theme(pilot: Pilot[None], app: CkptdiffApp) -> None:
    before = app.screen.styles.background
    await press(pilot, "t")
    assert app.theme == "light"
    assert app.screen.styles.background != before
    await press(pilot, "t")
    assert app.theme == "dark"


async def opens_the_palette(pilot: Pilot[None], app: CkptdiffApp) -> None:
    for key in ("colon", "ctrl+p"):
        await press(pilot, key)
        await until(pilot, lambda: "Re-export (e)" in screen_text(app) or len(app.screen_stack) > 1)
        app.screen.query_one(Input).value = "modules x schemes"
        await until(pilot, lambda: "Layers (2)" in screen_text(app))
        await press(pilot, "escape")


async def helps(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "question_mark")
    assert isinstance(app.screen, HelpPage)
    assert "A grid." in screen_text(app)
    await press(pilot, "escape", "tab", "question_mark")
    assert "Details of what the cursor is on" in " ".join(screen_text(app).split())
    await press(pilot, "end")
    assert "every byte is the same" in screen_text(app)
    await press(pilot, "q")
    assert app.is_running


async def goes_back(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await press(pilot, "2", "3", "escape")
    assert app.state.mode == "layers"
    await press(pilot, "enter", "escape", "escape")
    assert app.state.mode == "sweep"
    await press(pilot, "escape")
    assert "q quits" in screen_text(app)


async def quits(pilot: Pilot[None], app: CkptdiffApp) -> None:
    await pilot.press("q")
    await until(pilot, lambda: not app.is_running)
    assert not app.bridge.busy


async def switches(pilot: Pilot[None], app: CkptdiffApp) -> None:
    for key, mode in zip("123456", MODES, strict=True):
        await press(pilot, key)
        assert app.state.mode == mode
        assert f"{key} {mode.capitalize()}" in lines(app)[0]


async def runs_in_probe_alone(pilot: Pilot[None], app: CkptdiffApp) -> None:
    """What it runs is tested beside the mode."""
    await press(pilot, "x")
    assert app.state.jobs == ()
    await press(pilot, "5", "x")
    assert "Cancel: nothing runs" in screen_text(app)
    assert "enter run" in lines(app)[-1]
    assert BY_ID["run"].why_not(app.state) is None
    await press(pilot, "1")
    assert "enter run" not in lines(app)[-1]
    assert BY_ID["run"].why_not(app.state) is not None


KEYS: dict[str, Play] = {
    **dict.fromkeys(MODES, switches),
    "run": runs_in_probe_alone,
    "cancel": runs_in_probe_alone,
    "filter": opens_filter,
    "next": finds_faults,
    "previous": finds_faults,
    "mark": marks,
    "rule": shows_the_manual,
    "copy": copies,
    "export": asks_where_to_export,
    "svg": asks_where_to_draw,
    "reexport": plans_a_repair,
    "deep": recomputes,
    "raw": only_diff_is_raw,
    "rehash": reads_again,
    "sort": sorts,
    "reverse": sorts,
    "theme": changes_the_theme,
    "palette": opens_the_palette,
    "help": helps,
    "back": goes_back,
    "quit": quits,
}


def test_every_action_has_a_test() -> None:
    assert set(KEYS) == {action.id for action in ACTIONS}


@sizes
@pytest.mark.parametrize("play", list(dict.fromkeys(KEYS.values())), ids=lambda play: play.__name__)
def test_the_key_does_what_the_table_says(play: Play, size: tuple[int, int]) -> None:
    run(COPIED, play, size)


def test_every_action_has_a_key_of_its_own() -> None:
    keys = [key for action in ACTIONS for key in action.keys.split(",")]
    assert len(keys) == len(set(keys))


def test_the_palette_has_every_action() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "colon")
        for action in ACTIONS:
            app.screen.query_one(Input).value = action.name
            await until(pilot, lambda: title(action) in screen_text(app))  # noqa: B023

    run(COPIED, play, WIDE)
