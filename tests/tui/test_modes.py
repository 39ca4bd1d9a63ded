"""Every mode, on a small and on a large screen, without a terminal."""

from __future__ import annotations

from pathlib import Path

import build
import pytest
from driving import (
    COPIED,
    NARROW,
    SAMPLES,
    WIDE,
    fits,
    lines,
    press,
    run,
    screen_text,
    settle,
    sizes,
    until,
)
from textual.pilot import Pilot

from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.screens.pages import DeltaPage, ModulePage, SchemePage, TensorPage
from ckptdiff.tui.screens.sweep import SweepScreen
from ckptdiff.tui.widgets.grid import Grid


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


@pytest.mark.parametrize("widget", ["#title", "#keys", "Grid"])
def test_a_screen_that_is_being_closed_hears_of_jobs(widget: str) -> None:
    """The app ends while something is read: widgets go first, one by one."""

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await app.screen.query_one(widget).remove()
        app.set_state(app.state)

    run(COPIED, play, NARROW)


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
