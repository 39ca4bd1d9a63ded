"""Mode Probe: the form, a probe that runs, what it shows, and what can go wrong.

Most tests play back a report that was computed once, part by part; the last ones run the child.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import build
import pytest
from command import run as run_command
from driving import NARROW, SAMPLES, WIDE, drive, lines, press, screen_text, settle, until
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.errors import CapabilityError, ChildError, CkptdiffError
from ckptdiff.events import Advanced, Finished, Started
from ckptdiff.records.probe import ProbeReport
from ckptdiff.tui import bridge, export, probing
from ckptdiff.tui.actions import BY_ID, command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.screens.dialogs import Ask
from ckptdiff.tui.widgets.form import Form
from ckptdiff.tui.widgets.grid import Grid

SECONDS = 120  # a child imports torch, on a machine that may be busy
Play = Callable[["Pilot[None]", CkptdiffApp], Awaitable[None]]

sizes = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "160x50"])


def run(root: Path, play: Play, size: tuple[int, int] = NARROW, **options: object) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        await press(pilot, "5")
        await play(pilot, app)

    drive(root, scenario, size, **options)


def probed(app: CkptdiffApp) -> probing.Probed:
    assert app.state.probed is not None
    return app.state.probed


def fits(app: CkptdiffApp, size: tuple[int, int]) -> None:
    shown = lines(app)
    assert len(shown) == size[1]
    assert {len(line) for line in shown} == {size[0]}
    assert "? help" in shown[-1]


@pytest.fixture(scope="module")
def computed() -> dict[str, ProbeReport]:
    """What a probe of either sample finds, on a few prompts."""
    base = SAMPLES / "base"
    return {
        name: api.probe(
            sweep=SAMPLES / name, base=base, limit=4, device="cpu", perplexity=True, cache=False
        )
        for name in ("sweep", "copied")
    }


class Playback:
    """Stands in for `api.probe`: waits to be told how much of a report it has computed."""

    def __init__(self, report: ProbeReport, error: CkptdiffError | None = None) -> None:
        self.report, self.error = report, error
        self.asked: dict[str, Any] = {}
        self.calls = 0
        self._wanted = 0
        self._turn = threading.Condition()

    def until(self, results: int) -> None:
        """Let it come as far as so many results; more than there are: to its end."""
        with self._turn:
            self._wanted = results
            self._turn.notify_all()

    def _wait(self, results: int, cancel: Any) -> None:
        with self._turn:
            while self._wanted < results:
                cancel.raise_if_cancelled()
                self._turn.wait(0.01)

    def __call__(
        self, *, sink: Any, cancel: Any, on_result: Any, log: Path, **asked: Any
    ) -> ProbeReport:
        self.asked = asked
        self.calls += 1
        log.write_text("a line of the child\n")
        sink(Started("load", 1000, "bytes"))
        sink(Advanced("load", 1000))
        sink(Finished("load"))
        if self.error is not None:
            raise self.error
        results = self.report.results
        for done in range(len(results) + 1):
            worst = self.report.worst if done else ()
            part = replace(self.report, results=results[:done], worst=worst, curves=(),
                           verdict=f"{done} done")  # fmt: skip
            on_result(part)
            if done < len(results):
                sink(Started(f"probe {results[done].scheme}", 4, "prompts"))
            self._wait(done + 1, cancel)
        return self.report


@pytest.fixture()
def play_back(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Playback]:
    def start(*arguments: Any) -> Playback:
        playback = Playback(*arguments)
        monkeypatch.setattr(bridge, "INTERVAL", 0.0)  # nothing happens while it waits
        monkeypatch.setattr(api, "probe", playback, raising=False)
        return playback

    return start


# The form


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


# A probe that runs


@sizes
def test_results_appear_as_they_come(
    size: tuple[int, int], computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    report = computed["sweep"]

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        playback = play_back(report)
        await pilot.press("enter")
        await until(pilot, lambda: "0 of 5 schemes" in screen_text(app))
        await until(pilot, lambda: "… probe fp8 ░" in screen_text(app))
        assert "nothing is computed yet" in screen_text(app)
        await pilot.press("enter")  # one at a time
        await until(pilot, lambda: "a probe is running" in screen_text(app))
        assert playback.calls == 1
        for done in (1, 2, 3):
            playback.until(done)
            await until(pilot, lambda: f"{done} of 5 schemes" in screen_text(app))  # noqa: B023
            text = screen_text(app)
            assert f"so far: {done} done" in text
            assert text.count("✓ done") == done
            assert f"{report.results[done - 1].kl.mean:.1e}" in text
            assert "… 0%" in text  # the next one
        assert BY_ID["export"].why_not(app.state) is not None  # the command prints no part
        fits(app, size)
        playback.until(99)
        await settle(pilot)
        assert probed(app).report is report
        text = " ".join(screen_text(app).split())
        assert "so far" not in text
        assert "KL over % of modules rises" in text or "does not rise" in text
        assert "ppl" in text
        assert text.count("✓ done") == 5
        assert playback.asked == {"sweep": SAMPLES / "sweep"}
        record = app.state.record(probed(app).job)
        assert record is not None
        assert record.words == ("probe", "--sweep", str(SAMPLES / "sweep"))
        assert record.result is report
        assert not record.runs
        assert record.log == ("a line of the child",)
        fits(app, size)

    run(SAMPLES / "sweep", play, size)


@sizes
def test_the_detail_of_a_scheme_and_its_worst_prompts(
    size: tuple[int, int], computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    report = computed["sweep"]

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(report).until(99)
        await press(pilot, "enter", "tab", "j", "j")
        result = report.results[2]
        text = screen_text(app)
        assert result.scheme in text
        assert f"{result.kl.mean:.2e}" in text
        await press(pilot, "tab")
        seen = [screen_text(app)]
        for _ in range(6):
            await press(pilot, "pagedown")
            seen.append(screen_text(app))
        text = "\n".join(seen)
        assert "worst prompts" in text
        assert report.worst[0].text.split()[0] in text
        assert f"{result.per_prompt.kl[report.worst[0].number - 1]:.1e}" in text
        assert "noise floor" in text
        assert report.device in text
        fits(app, size)

    run(SAMPLES / "sweep", play, size)


@sizes
def test_equal_schemes_are_called_out(
    size: tuple[int, int], computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(computed["copied"]).until(99)
        await press(pilot, "enter", "tab")
        text = screen_text(app)
        assert "top10, top30, top50 and top100 are indistinguishable" in " ".join(text.split())
        assert text.count("= top10") == 3
        assert "one point" in text
        await press(pilot, "n")
        assert app.screen.query_one(Grid).cursor == 1
        text = " ".join(screen_text(app).split())
        assert "the same model as" in text
        assert "(identical weights)" in text
        await press(pilot, "slash", *"status:identical", "enter")
        assert "3 of 4" in screen_text(app)
        fits(app, size)

    run(SAMPLES / "copied", play, size)


def test_below_the_noise_is_said(
    computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    report = computed["sweep"]
    first = replace(report.results[0], indistinguishable=True)
    report = replace(report, results=(first, *report.results[1:]))

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(report).until(99)
        await press(pilot, "enter", "tab")
        text = " ".join(screen_text(app).split())
        assert text.count("~ noise") == 1
        assert "below the noise floor: not told from the reference" in text

    run(SAMPLES / "sweep", play, WIDE)


@sizes
def test_it_is_cancelled_and_what_was_computed_stays(
    size: tuple[int, int], computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        playback = play_back(computed["sweep"])
        await press(pilot, "x")
        assert "Cancel: nothing runs" in screen_text(app)
        await pilot.press("enter")
        playback.until(2)
        await until(pilot, lambda: "2 of 5 schemes" in screen_text(app))
        await press(pilot, "x")
        assert probed(app).problem == probing.STOPPED
        text = " ".join(screen_text(app).split())
        assert "stopped by you; until then: 2 done" in text
        assert text.count("✓ done") == 2
        assert "Traceback" not in text
        record = app.state.record(probed(app).job)
        assert record is not None
        assert record.cancelled
        playback.until(99)
        await press(pilot, "enter")  # once more, to its end
        assert probed(app).complete
        assert playback.calls == 2
        assert len(app.state.jobs) == 2
        fits(app, size)

    run(SAMPLES / "sweep", play, size)


def test_a_form_that_was_changed_since_is_said(
    computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    root = str(SAMPLES / "sweep")

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(computed["sweep"]).until(99)
        await press(pilot, "enter", "up", "end", "down", "down", "down", "right")
        assert app.state.form.limit == 8
        assert "the form was changed: enter runs it" in screen_text(app)
        await press(pilot, "y")
        assert app.clipboard == command_line(("probe", "--sweep", root, "--limit", "8"))
        # What would be written is the report that is there.
        assert BY_ID["export"].command(app.state) == ("probe", "--sweep", root)

    run(SAMPLES / "sweep", play)


def test_files_that_change_make_it_stale(
    sweep: Path, computed: dict[str, ProbeReport], play_back: Callable[..., Playback]
) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(computed["sweep"]).until(99)
        await press(pilot, "enter")
        assert not probed(app).stale
        build.copy_weights(sweep, 100, (10,))
        app.work.poll()
        await settle(pilot)
        assert probed(app).stale
        assert "files changed after these numbers" in " ".join(screen_text(app).split())

    run(sweep, play, WIDE)


@sizes
def test_names_of_strangers_are_harmless(
    size: tuple[int, int], computed: dict[str, ProbeReport], play_back: Callable[..., Playback],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Escape codes, markup and wide characters, in names, prompts and errors."""
    evil = "\x1b[2J[bold red]日本👍🏽🇩🇪e\u0301\u202e[@click=app.quit]"
    root = tmp_path / "sweep"
    shutil.copytree(SAMPLES / "sweep", root)
    renamed = {}
    for path in sorted(root.iterdir()):
        renamed[path.name] = f"{evil}{path.name}"
        path.rename(root / renamed[path.name])
    report = computed["sweep"]
    report = replace(
        report,
        results=tuple(replace(r, scheme=renamed[r.scheme], family=evil) for r in report.results),
        curves=tuple(replace(c, family=evil, schemes=tuple(renamed[s] for s in c.schemes))
                     for c in report.curves),
        worst=tuple(replace(w, text=evil * 9, scheme=renamed[w.scheme]) for w in report.worst),
        notes=(evil,),
        verdict=f"{evil}: {renamed[report.results[0].scheme]} is not told from the reference",
        device=evil,
    )  # fmt: skip

    def harmless(app: CkptdiffApp) -> None:
        text = screen_text(app)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert {cell_len(line) for line in lines(app)} == {size[0]}

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        harmless(app)
        play_back(report).until(99)
        await press(pilot, "right", "enter", "tab", "n", "j", "tab", "end")
        harmless(app)
        assert probed(app).complete
        await press(pilot, "6")
        harmless(app)
        await press(pilot, "5", "y")
        harmless(app)
        assert app.clipboard.isprintable()
        play_back(report, ChildError(evil, evil))
        await press(pilot, "enter")
        harmless(app)

    run(root, play, size, base=str(SAMPLES / "base"))


# What can go wrong


ERRORS = (
    CapabilityError("the model does not fit: 7 GB are needed, 2 GB are free",
                    "Use --device cpu, or --dtype bfloat16."),
    ChildError("the probe was ended by SIGKILL: perhaps there was too little memory",
               'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    boom()\n'
               "RuntimeError: x\nIts output is in /somewhere/probe.log."),
)  # fmt: skip


@sizes
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_are_shown_with_their_next_step(
    error: CkptdiffError, size: tuple[int, int], computed: dict[str, ProbeReport],
    play_back: Callable[..., Playback],
) -> None:  # fmt: skip
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(computed["sweep"], error)
        await press(pilot, "enter")
        text = " ".join(screen_text(app).split())
        assert error.message.split(":")[0] in text
        assert error.next_step.split("\n")[-1][:30] in text
        assert "next:" in text
        for word in ("Traceback", "line 3", "boom"):
            assert word not in text
        assert app.state.mode == "probe"
        assert probed(app).problem == str(error)
        assert not app.state.failures  # it is said in the mode, not in every other one
        fits(app, size)

    run(SAMPLES / "sweep", play, size)


@sizes
def test_without_torch_the_action_says_what_to_install(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptdiff.jobs.children.find_spec", lambda name: None)
    probing._missing.cache_clear()

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        text = " ".join(screen_text(app).split())
        assert "disabled" in text
        assert "the probe needs torch" in text
        assert "pip install 'ckptdiff[probe]'" in text
        await press(pilot, "enter")
        assert app.state.probed is None
        assert "Run: the probe needs torch" in " ".join(screen_text(app).split())
        await press(pilot, "right")  # the form can be filled, and its command copied
        await press(pilot, "y")
        assert app.clipboard.startswith("ckptdiff probe")
        fits(app, size)

    try:
        run(SAMPLES / "copied", play, size)
    finally:
        probing._missing.cache_clear()


def test_without_a_base_a_reference_is_chosen(sweep: Path) -> None:
    shutil.rmtree(sweep.parent / "base")

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert "none found: choose one" in screen_text(app)
        assert "choose another reference above" in " ".join(screen_text(app).split())
        await press(pilot, "enter")
        assert app.state.probed is None
        await press(pilot, "y")
        assert app.clipboard == ""
        await press(pilot, "right")
        ids = [row.id for row in app.state.schemes]
        words = probing.words(probing.asked(app.state))
        assert words == ("probe", *(str(sweep / id) for id in ids))
        assert BY_ID["run"].why_not(app.state) is None

    run(sweep, play, WIDE)


def test_keys_of_the_mode_mean_nothing_elsewhere() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "1")
        assert "enter run" not in screen_text(app)
        await press(pilot, "enter")  # opens the scheme, as before
        assert len(app.screen_stack) == 2
        assert app.state.probed is None

    run(SAMPLES / "copied", play)


# The child itself


async def ended(pilot: Pilot[None], app: CkptdiffApp) -> None:
    """Wait for a child that imports torch."""
    deadline = time.monotonic() + SECONDS
    while probed(app).running:
        assert time.monotonic() < deadline, screen_text(app)
        await pilot.pause(0.05)
    await settle(pilot)


def children() -> Iterator[int]:
    """The processes that compute a probe for this one."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if (
                parent == os.getpid()
                and b"ckptdiff.runtime.probe" in (path / "cmdline").read_bytes()
            ):
                yield int(path.name)
        except OSError:
            continue  # it ended in between


def test_the_command_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every action that has it, and in every format that is exported."""
    monkeypatch.chdir(SAMPLES.parent)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        for _ in range(3):
            await press(pilot, "down")
        await press(pilot, "space")
        app.screen.query_one(Input).value = "3"
        await press(pilot, "enter", "down", "right")  # device: cpu
        await pilot.press("enter")
        await ended(pilot, app)
        assert probed(app).complete, probed(app).problem
        report = export.shown_report(app.state)
        assert isinstance(report, ProbeReport)
        assert set(export.formats(report)) == {".json", ".txt", ".md", ".svg"}
        files = {suffix: tmp_path / f"it{suffix}" for suffix in export.formats(report)}
        found = {BY_ID[id].command(app.state) for id in ("probe", "run", "copy", "export")}
        (words,) = found
        assert words == (
            "probe", "--sweep", "samples/copied", "--device", "cpu", "--limit", "3"
        )  # fmt: skip
        more = [word for path in files.values() for word in ("-o", str(path))]
        done = run_command(*words, "--json", *more, cwd=SAMPLES.parent)
        assert done.code == 0, done.err
        assert done.out == api.render(report, "json")
        for suffix, path in files.items():
            written = tmp_path / f"app{suffix}"
            await press(pilot, "o")
            app.screen.query_one(Input).value = str(written)
            await press(pilot, "enter")
            await until(pilot, written.exists)
            await settle(pilot)
            assert written.read_bytes() == path.read_bytes()

    run(Path("samples/copied"), play)


def test_cancelling_ends_the_child() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: bool(list(children())))
        await press(pilot, "x")
        assert not probed(app).running  # which is said when the child is gone
        assert not list(children())
        assert probed(app).problem == probing.STOPPED

    run(SAMPLES / "sweep", play)
