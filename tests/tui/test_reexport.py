"""The plan of a re-export in the app and its choices, and the deep check."""

from __future__ import annotations

import shlex
import shutil
import threading
from pathlib import Path

import pytest
from command import run as run_command
from driving import NARROW, SAMPLES, SECONDS, WIDE, lines, press, screen_text, settle, until
from repairing import (
    BASELINE,
    NAME,
    SWEEP,
    WHOLE,
    broken_sweep,
    choose,
    dialog,
    files,
    fits,
    report_of,
    roomless,
    run,
    sizes,
    words_on,
)
from textual.pilot import Pilot

from ckptdiff import api
from ckptdiff.tui import reexports
from ckptdiff.tui.actions import BY_ID, command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.screens.sweep import SweepScreen


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return broken_sweep(tmp_path)


# The plan


@sizes
def test_the_plan_says_what_would_be_done_and_esc_does_nothing(
    copied: Path, size: tuple[int, int]
) -> None:
    before = files(copied.parent)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        await choose(pilot, "donor", str(WHOLE))
        text = words_on(app)
        assert "Re-export of 1 scheme nothing is written before you agree" in text
        assert "possible: 1 scheme, 1.10 MB to write" in text
        assert "engine compose: calibration does not depend on which layers are" in text
        assert "selected 7 modules to FP8; 42 dropped" in text
        assert "7 from" in text and "proven against" in text
        assert f"base {copied.parent.name}" in text or "base" in text
        assert "_v2" in text
        (plan,) = report_of(app).plans
        assert f"of {reexports.human_bytes(plan.free or 0)} free" in text
        assert "enter write" in text
        fits(app, size)
        await press(pilot, "pagedown", "pageup", "escape")
        assert isinstance(app.screen, SweepScreen)
        assert app.state.jobs == () and app.state.work == ()

    run(copied, play, size)
    assert files(copied.parent) == before


@sizes
def test_an_impossible_plan_says_what_is_missing_and_cannot_be_agreed_to(
    copied: Path, size: tuple[int, int]
) -> None:
    before = files(copied.parent)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e", "right")  # compose
        await choose(pilot, "donor", str(BASELINE))
        text = words_on(app)
        assert "cannot: 1 of 1 scheme cannot be written" in text
        assert "missing 2 modules: model.layers.0.self_attn.o_proj, visual.merger.mlp.2" in text
        assert "--engine modelopt" in text
        fits(app, size)
        await press(pilot, "enter")
        assert "the plan lacks" in words_on(app)
        assert not report_of(app).possible
        await press(pilot, "escape")
        assert app.state.jobs == ()

    run(copied, play, size)
    assert files(copied.parent) == before


def test_what_is_planned_marked_else_broken_else_under_the_cursor(copied: Path) -> None:
    async def broken(pilot: Pilot[None], app: CkptdiffApp) -> None:
        ids = [row.id for row in app.state.schemes]
        assert reexports.targets(app.state) == tuple(ids)
        await press(pilot, "j", "space", "space", "e")
        assert [plan.original for plan in report_of(app).plans] == [
            str(copied / id) for id in ids[1:3]
        ]

    async def healthy(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert reexports.broken(app.state) == ()
        await press(pilot, "j", "e")
        assert app.state.scheme is not None
        (plan,) = report_of(app).plans
        assert plan.original == str(SWEEP / app.state.scheme)

    run(copied, broken)
    run(SWEEP, healthy)


def test_choices_plan_anew_and_are_in_the_command(copied: Path) -> None:
    scheme = copied / NAME.format(10)
    base = f"{copied}/../base"

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        line = command_line(("reexport", str(scheme), "--base", base, "--yes"))
        await press(pilot, "y")
        assert app.clipboard == line
        engines = []
        for _ in range(4):
            engines.append((dialog(app).request.engine, report_of(app).plans[0].engine))
            await press(pilot, "right")
        assert engines == [("auto", "modelopt"), ("compose", "compose"),
                           ("modelopt", "modelopt"), ("autoquant", "autoquant")]  # fmt: skip
        assert dialog(app).request.engine == "auto"
        await press(pilot, "left")
        assert dialog(app).request.engine == "autoquant"
        await press(pilot, "right", "down", "right")  # in its place
        assert report_of(app).plans[0].in_place
        assert report_of(app).plans[0].target == str(scheme)
        await choose(pilot, "donor", f"{shlex.quote(str(WHOLE))} {BASELINE}")
        assert dialog(app).request.donors == (str(WHOLE), str(BASELINE))
        assert report_of(app).plans[0].engine == "compose"
        await choose(pilot, "calib", str(copied / "none.txt"))
        assert "none.txt" in words_on(app) and "✗" in screen_text(app)  # there is no such file
        await press(pilot, "enter")
        assert "there is no plan" in words_on(app)
        await press(pilot, "y")
        assert "--calib" in app.clipboard and "--in-place" in app.clipboard
        # Composing runs no model, so that rows mean nothing to it.
        await press(pilot, *["up"] * 4, "right")
        assert "no model is run" in words_on(app)
        assert report_of(app).possible
        await press(pilot, "y")
        words = shlex.split(app.clipboard)
        assert words == [
            "ckptdiff", "reexport", str(scheme), "--engine", "compose", "--base", base,
            "--donor", str(WHOLE), "--donor", str(BASELINE), "--in-place", "--yes",
        ]  # fmt: skip
        done = run_command(*words[1:], "--dry-run", "--json")
        assert done.code == 0, done.err
        assert roomless(done.out) == roomless(api.render(report_of(app), "json"))
        await press(pilot, "down", "down", "left")  # the family again
        assert dialog(app).request.donors == ()

    run(copied, play, WIDE)


def test_a_donor_that_is_none_and_one_that_is_quoted_wrongly(copied: Path) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        await choose(pilot, "donor", str(copied / "nothing"))
        assert "nothing" in words_on(app)
        assert dialog(app).answer is not None
        assert dialog(app).answer.planned is None  # type: ignore[union-attr]
        before = dialog(app).request
        await choose(pilot, "donor", "'unfinished")
        assert "No closing quotation" in words_on(app)
        assert dialog(app).request == before

    run(copied, play, WIDE)


def test_a_defect_of_ours_is_shown_and_the_app_lives(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object, **__: object) -> None:
        raise RuntimeError("oh no")

    monkeypatch.setattr(api, "plan_reexport", defect, raising=False)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "e")
        assert "this is a defect of ckptdiff: RuntimeError: oh no" in words_on(app)
        await press(pilot, "enter", "escape")
        assert isinstance(app.screen, SweepScreen)
        assert app.state.failures == {}

    run(copied, play)


def test_esc_while_it_plans_leaves_no_trace(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, real = threading.Event(), api.plan_reexport

    def slow(*arguments: object, **keywords: object) -> object:
        go.wait(SECONDS)
        return real(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "plan_reexport", slow, raising=False)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await pilot.press("e")
        await until(pilot, lambda: "planning" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "the plan is not there yet" in words_on(app))
        await pilot.press("escape")
        go.set()
        await settle(pilot)
        assert app.state.work == () and app.state.jobs == ()
        assert isinstance(app.screen, SweepScreen)

    run(copied, play, WIDE)


def test_read_only_says_why_and_shows_the_rest(copied: Path) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "e")
        assert "Re-export: --read-only: nothing is written" in words_on(app)
        await press(pilot, "colon")
        assert BY_ID["reexport"].why_not(app.state) is not None
        await press(pilot, "escape", "6")
        assert "nothing runs or ran" in screen_text(app)
        await press(pilot, "1", "D")  # reads alone
        assert app.state.deep

    run(copied, play, WIDE, read_only=True)


# Deep


def test_without_a_base_nothing_can_be_recomputed(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SAMPLES / "copied", tmp_path / "q"))

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert app.state.base_id is None
        await press(pilot, "D")
        assert "no base gives the weights:" in words_on(app)
        assert not app.state.deep and not app.work.deep

    run(root, play, WIDE)


@sizes
def test_deep_is_shown_and_holds_for_later_looks(copied: Path, size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "D")
        await until(pilot, lambda: "recomputed" in screen_text(app))
        assert "deep" in lines(app)[3 if size == NARROW else 2]
        row = app.state.row
        assert row is not None and row.proof is not None
        fits(app, size)
        await press(pilot, "R")
        assert app.state.deep
        await press(pilot, "y")
        assert app.clipboard.endswith("--deep")

    run(copied, play, size)
