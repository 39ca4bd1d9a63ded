"""Mode Probe: the form, which says what would be probed."""

from __future__ import annotations

from pathlib import Path

from driving import NARROW, SAMPLES, press, screen_text
from playback import fits, run, sizes
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff.tui import probing
from ckptdiff.tui.actions import command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.screens.dialogs import Ask
from ckptdiff.tui.widgets.form import Form
from ckptdiff.tui.widgets.grid import Grid


@sizes
def test_it_says_what_would_be_probed(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        text = screen_text(app)
        for word in ("reference", "base", "4 (the whole sweep)", "built in", "all prompts",
                     "device", "auto", "dtype", "activations", "perplexity", "enter run",
                     "x cancel", "33/49", "top100"):  # fmt: skip
            assert word in text
        assert "ckptdiff probe --sweep" in text
        fits(app, size)

    run(SAMPLES / "copied", play, size)


@sizes
def test_the_form_is_changed_by_keys(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert isinstance(app.focused, Form)
        for _ in range(4):
            await press(pilot, "down")
        await press(pilot, "right")  # device
        assert app.state.form.device == "cpu"
        await press(pilot, "left", "left")
        assert app.state.form.device == "cuda"  # around the end
        await press(pilot, "l", "l", "j", "l")
        assert (app.state.form.device, app.state.form.dtype) == ("cpu", "float32")
        await press(pilot, "down", "space", "down", "space")
        assert (app.state.form.activations, app.state.form.perplexity) == ("static", True)
        await press(pilot, "k", "k", "k", "k", "right")
        assert app.state.form.limit == 8
        await press(pilot, "y")
        root = str(SAMPLES / "copied")
        assert app.clipboard == command_line(
            ("probe", "--sweep", root, "--device", "cpu", "--dtype", "float32", "--limit", "8",
             "--activations", "static", "--perplexity")
        )  # fmt: skip
        assert "the first 8" in screen_text(app)
        assert "static: inputs rounded" in screen_text(app)
        fits(app, size)

    run(SAMPLES / "copied", play, size)


@sizes
def test_values_are_typed(size: tuple[int, int]) -> None:
    async def type_in(pilot: Pilot[None], app: CkptdiffApp, text: str) -> None:
        await press(pilot, "space")
        assert isinstance(app.screen, Ask)
        app.screen.query_one(Input).value = text
        await press(pilot, "enter")
        assert not isinstance(app.screen, Ask)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "down", "space")  # schemes: chosen elsewhere
        assert "mark schemes in Sweep" in screen_text(app)
        await press(pilot, "down")
        await type_in(pilot, app, "my [b]prompts.jsonl")
        assert "my [b]prompts.jsonl" in screen_text(app)
        await press(pilot, "right")
        assert app.state.form.prompts == ""
        await press(pilot, "space", "escape")
        assert app.state.form.prompts == ""
        await press(pilot, "down")
        await type_in(pilot, app, "17")
        assert app.state.form.limit == 17
        await type_in(pilot, app, "none")
        assert "is no number of 1" in screen_text(app)
        await type_in(pilot, app, "0")
        assert app.state.form.limit == 17
        await press(pilot, "down")
        await type_in(pilot, app, "cuda:0,cuda:1")
        assert app.state.form.device == "cuda:0,cuda:1"
        fits(app, size)

    run(SAMPLES / "copied", play, size)


def test_marks_and_another_reference_choose_what_is_compared() -> None:
    root = SAMPLES / "sweep"

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        ids = [row.id for row in app.state.schemes]
        await press(pilot, "1", "space", "space", "5")
        assert "2 (marked)" in screen_text(app)
        assert probing.words(probing.asked(app.state)) == (
            "probe", str(root / "../base"), str(root / ids[0]), str(root / ids[1])
        )  # fmt: skip
        await press(pilot, "right")  # the first scheme, which is marked, as the reference
        assert app.state.form.reference == ids[0]
        assert probing.words(probing.asked(app.state)) == (
            "probe", str(root / ids[0]), str(root / ids[1])
        )  # fmt: skip
        await press(pilot, "1", "g", "space", "space", "5")  # no marks
        assert "4 (the others)" in screen_text(app)
        await press(pilot, "left")
        assert "5 (the whole sweep)" in screen_text(app)

    run(root, play)


def test_a_base_that_was_named_is_named_again(bug: Path, tmp_path: Path) -> None:
    settings = tmp_path / "team.toml"
    settings.write_text(f'base = "{bug.parent / "base"}"\n')

    async def named(pilot: Pilot[None], app: CkptdiffApp) -> None:
        words = probing.words(probing.asked(app.state))
        assert words == ("probe", "--sweep", str(bug), "--base", str(bug.parent / "base"))

    run(bug, named, base=str(bug.parent / "base"))

    async def by_settings(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert app.state.report is not None
        assert app.state.report.base is not None
        words = probing.words(probing.asked(app.state))
        assert words is not None
        assert Path(words[-1]).resolve() == (bug.parent / "base").resolve()

    run(bug, by_settings, config=str(settings))


@sizes
def test_the_form_by_mouse(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        form = app.screen.query_one(Form)
        columns = 2 if size == NARROW else 4
        rows = 8 // columns
        at = (7 // rows * (form.size.width // columns) + 16, 7 % rows)  # perplexity, the last
        await pilot.click(Form, offset=at)
        assert form.cursor == 7
        assert not app.state.form.perplexity
        await pilot.click(Form, offset=at)
        assert app.state.form.perplexity

    run(SAMPLES / "copied", play, size)


def test_a_form_in_one_line_scrolls() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        form = app.screen.query_one(Form)
        assert form.size.height == 1
        assert "reference" in screen_text(app)
        await press(pilot, "down", "down")
        assert "prompts" in screen_text(app)
        assert app.screen.query_one(Grid).visible_rows >= 4
        fits(app, (80, 10))

    run(SAMPLES / "copied", play, (80, 10))
