"""Every mode and every key, on a small and on a large screen, without a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import build
import pytest
from driving import NARROW, SAMPLES, WIDE, drive, lines, press, screen_text, settle, until
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.tui.actions import ACTIONS, BY_ID, command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.palette import title
from ckptdiff.tui.screens.dialogs import Ask, HelpPage
from ckptdiff.tui.screens.pages import DeltaPage, ModulePage, RulePage, SchemePage, TensorPage
from ckptdiff.tui.screens.replan import PlanDialog
from ckptdiff.tui.screens.sweep import SweepScreen
from ckptdiff.tui.state import MODES
from ckptdiff.tui.widgets.grid import Grid

COPIED = SAMPLES / "copied"
Play = Callable[["Pilot[None]", CkptdiffApp], Awaitable[None]]

sizes = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "160x50"])


def run(root: Path, play: Play, size: tuple[int, int], **options: object) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        await play(pilot, app)

    drive(root, scenario, size, **options)


def fits(app: CkptdiffApp, size: tuple[int, int]) -> None:
    """Nothing is wider than the screen, and the keys are on its last line."""
    shown = lines(app)
    assert len(shown) == size[1]
    assert {len(line) for line in shown} == {size[0]}
    assert "? help" in shown[-1]


@sizes
def test_the_founding_bug_is_on_the_first_screen(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        text = screen_text(app)
        assert "✗ FAIL" in text
        assert "4 schemes carry one set of weights" in text
        assert text.count("A ×4") == 4
        assert "none safe to use" in text
        assert "CK501 identical-weights" in text
        for name in ("top10", "top30", "top50", "top100"):
            assert name in text
        fits(app, size)

    run(COPIED, play, size)


@sizes
def test_a_healthy_sweep_says_so(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        text = screen_text(app)
        assert "✓ PASS" in text
        assert "5 safe to use" in text
        assert "×" not in text
        fits(app, size)

    run(SAMPLES / "sweep", play, size)


@sizes
def test_layers(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "2")
        text = screen_text(app)
        assert "104 mismatches, 49 of 49" in text
        assert "!FP8" in text
        assert "!BF16" in text
        # The cursor is on a mismatch from the start; n goes to the next one of 104.
        assert "CK302 quantized-not-selected" in text or "CK301 selected" in text
        grid = app.screen.query_one(Grid)
        seen = set()
        for _ in range(104):
            seen.add((grid.key, grid.across))
            await pilot.press("n")
        assert len(seen) == 104
        assert (grid.key, grid.across) in seen
        here = grid.key, grid.across
        await pilot.press("N")
        await pilot.press("n")
        assert (grid.key, grid.across) == here
        fits(app, size)

    run(COPIED, play, size)


@sizes
def test_a_module_and_its_tensors(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "2", "enter")
        assert isinstance(app.screen, ModulePage)
        text = screen_text(app)
        assert "contradict each other" in text
        assert ".quant_recipe" in text
        assert "(1 is the least sensitive)" in text
        fits(app, size)
        await press(pilot, "escape", "n", "enter")
        grid = app.screen.query_one(Grid)
        assert grid.store is not None
        row = next(n for n, key in enumerate(grid.store.keys) if key.endswith(".weight"))
        assert grid.store.column("dtype").values[row] == "F8_E4M3"
        grid.move_to(grid.store.view.index(row))
        await press(pilot, "enter")
        assert isinstance(app.screen, TensorPage)
        text = screen_text(app)
        assert "histogram" in text
        assert "elements" in text
        assert "dequantised values" in text
        fits(app, size)
        await press(pilot, "r")
        assert "stored values" in screen_text(app)
        assert "448" in screen_text(app)  # the largest code of F8_E4M3
        await press(pilot, "r")
        assert "dequantised values" in screen_text(app)
        await press(pilot, "escape", "escape")
        assert "mismatches" in screen_text(app)

    run(COPIED, play, size)


@sizes
def test_identity(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "3")
        text = screen_text(app)
        assert text.count("=100") == 4 * 3
        assert "identical: 760 kB of 760 kB, 158 of 158 tensors" in " ".join(text.split())
        fits(app, size)
        await press(pilot, "enter")  # opens the pair in Diff
        assert app.state.mode == "diff"
        assert app.state.pair is not None
        assert app.state.diff is not None
        assert app.state.diff.total.changed == 0

    run(COPIED, play, size)


@sizes
def test_diff_against_the_base(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "j", "j", "4")
        assert app.state.pair == ("../base", "fp8_autoquant_all_layers_top30_captions")
        text = screen_text(app)
        assert "base → top30" in text
        assert "BF16 → FP8" in text
        assert "absolute error by decade" in text
        grid = app.screen.query_one(Grid)
        assert grid.store is not None
        errors = [grid.store.column("rel_error").values[row] for row in grid.store.view]
        known = [error for error in errors if error is not None]
        assert known == sorted(known, reverse=True)
        assert errors[len(known) :] == [None] * (len(errors) - len(known))
        fits(app, size)
        await press(pilot, "r")
        assert app.state.raw
        assert app.state.diff is not None
        await press(pilot, "enter")
        assert isinstance(app.screen, DeltaPage)
        text = screen_text(app)
        assert "stored numbers" in text
        assert "no difference: the" in text  # codes are not subtracted from plain values
        await press(pilot, "r")
        text = screen_text(app)
        for word in ("values, dequantised", "B - A  highest bin", "mean", "error", "absolute"):
            assert word in text
        fits(app, size)
        await press(pilot, "escape")
        assert app.state.mode == "diff"
        assert app.framed is not None and app.framed.grid is not None

    run(SAMPLES / "sweep", play, size)


def test_a_window_of_ten_lines_has_rows_in_every_mode() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        for mode in "1234":
            await press(pilot, mode)
            grid = app.screen.query_one(Grid)
            assert grid.visible_rows >= 4
            assert len(grid._placed()) > 1
            fits(app, (40, 10))

    run(COPIED, play, (40, 10))


def test_sorting_passes_over_columns_that_are_not_there() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        grid = app.screen.query_one(Grid)
        assert grid.store is not None
        for _ in range(8):
            await press(pilot, "s")
            assert grid.store.sorted_by is None or "▲" in screen_text(app)

    run(COPIED, play, (80, 24))


@sizes
def test_two_marked_schemes_are_compared(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "space")
        assert screen_text(app).count("●") == 2
        await press(pilot, "4")
        assert app.state.pair == tuple(row.id for row in app.state.schemes[:2])
        assert app.state.diff is not None
        assert "=" in screen_text(app)
        fits(app, size)

    run(COPIED, play, size)


@sizes
def test_jobs_without_a_job_say_what_makes_one(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "6")
        assert "nothing runs or ran; e plans a re-export" in screen_text(app)
        for key in ("y", "o", "x", "n", "enter"):  # nothing to copy, write, cancel or open
            await press(pilot, key)
        assert app.clipboard == ""
        assert len(app.screen_stack) == 1
        fits(app, size)

    run(COPIED, play, size)


@sizes
def test_a_scheme_in_full(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "enter")
        assert isinstance(app.screen, SchemePage)
        await press(pilot, "end")
        text = screen_text(app)
        assert "declares" in text
        assert "effective bits" in text or "recipes" in text
        fits(app, size)
        await press(pilot, "escape")
        assert not isinstance(app.screen, SchemePage)

    run(COPIED, play, size)


@sizes
def test_details_follow_the_cursor(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "j", "j")
        assert "top50_captions" in lines(app)[9 if size == NARROW else 8]
        screen = app.screen
        assert isinstance(screen, SweepScreen)
        await until(pilot, lambda: app.state.scheme in screen._details)
        await press(pilot, "tab", "end")
        assert "recipes" in screen_text(app)
        assert "26 of 49 modules" not in screen_text(app) or size == WIDE

    run(COPIED, play, size)


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


def test_the_first_frame_is_there_before_anything_is_read() -> None:
    """Whatever the app reads, it reads in workers that start after the first frame."""
    import asyncio

    from driving import make

    from ckptdiff.tui.work import Work

    app = make(COPIED)
    started: list[str] = []

    def look(work: Work) -> None:
        started.append(screen_text(app))

    async def play() -> None:
        async with app.run_test(size=NARROW) as pilot:
            await until(pilot, lambda: bool(started))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "look", look)
        asyncio.run(play())
    assert "1 Sweep" in started[0]
    assert "reading headers" in started[0]


def test_headers_are_judged_before_tensors_are_read(bug: Path) -> None:
    """The verdict from headers alone stands while hashes are awaited."""

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert "schemes quantize the same layers" in screen_text(app)
        assert not app.state.hashed
        assert app.state.report is not None
        assert {row.identity for row in app.state.schemes} == {None}

    from ckptdiff.tui.work import Work

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "hash", lambda work: None)
        run(bug, play, NARROW)


def test_one_scheme_is_a_sweep_of_one(sweep: Path) -> None:
    scheme = sweep / build.SweepSpec().scheme(30)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert len(app.state.schemes) == 1
        for key in "123456":
            await press(pilot, key, "enter", "escape")
        await settle(pilot)

    run(scheme, play, NARROW)
