"""Mode Probe: a probe that runs, and what it shows.

Most tests play back a report that was computed once, part by part; the last ones run the child.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import build
import pytest
from command import run as run_command
from driving import SAMPLES, WIDE, press, screen_text, settle, until
from playback import Playback, fits, probed, run, sizes
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.records.probe import ProbeReport
from ckptdiff.tui import export, probing
from ckptdiff.tui.actions import BY_ID, command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.widgets.grid import Grid

SECONDS = 120  # a child imports torch, on a machine that may be busy


# Played back


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
