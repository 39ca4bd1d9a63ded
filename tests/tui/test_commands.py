"""Every action that shows a report has a command line, and that prints the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import build
import pytest
from command import run
from driving import SAMPLES, drive, press, screen_text, until
from repairing import roomless
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.tui import export
from ckptdiff.tui.actions import ACTIONS, Action, Words, command_line, no_command
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.probing import ProbeForm
from ckptdiff.tui.screens.replan import PlanDialog
from ckptdiff.tui.state import MODES, Options, State

WITH_COMMAND = [action for action in ACTIONS if action.command is not no_command]

# The text of a diff is cut for the terminal; these ask for all of it.
CHILD_SECONDS = 120  # it imports torch, on a machine that may be busy
STATUSES = ("same", "changed", "dtype", "shape", "only_a", "only_b", "unread")
ALL_ROWS: dict[str, tuple[str, ...]] = {
    "check": (),
    "layers": (),
    "probe": (),
    "diff": ("--limit", "1000000", *(word for s in STATUSES for word in ("--only", s))),
}


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, State]]:
    """The state of the app in each mode that has a report, on the founding bug."""
    states: dict[str, State] = {}

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        # Few prompts, and the same numbers to the bit on any machine.
        app.state = dataclasses.replace(app.state, form=ProbeForm(device="cpu", limit=2))
        for key, mode in (("1", "sweep"), ("2", "layers"), ("3", "identity"), ("4", "diff")):
            await press(pilot, key)
            assert app.state.mode == mode
            states[mode] = app.state
        await press(pilot, "5")
        await pilot.press("enter")
        await until(pilot, lambda: not app.state.running, CHILD_SECONDS)
        states["probe"] = app.state
        await press(pilot, "1", "D")
        states["deep"] = app.state

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SAMPLES.parent)
        drive("samples/copied", scenario)
        yield states


@cache
def printed(words: Words, *more: str) -> bytes:
    done = run(*words, *more, cwd=SAMPLES.parent)
    assert done.code in (0, 1), done.err
    return done.out


@cache
def shown_plan() -> bytes:
    """The report that the plan dialog shows for the founding bug, as JSON."""
    found: list[bytes] = []

    async def scenario(pilot: Pilot[None]) -> None:
        await press(pilot, "e")
        dialog = pilot.app.screen
        assert isinstance(dialog, PlanDialog)
        assert dialog.answer is not None and dialog.answer.planned is not None
        found.append(api.render(dialog.answer.planned.report, "json"))

    drive("samples/copied", scenario)
    return found[0]


def planned_by(words: Words) -> bytes:
    """What the command would do, as JSON, without doing it."""
    assert words[-1] == "--yes"
    done = run(*words, "--dry-run", "--json", cwd=SAMPLES.parent)
    assert done.code in (0, 2), done.err
    assert len(done.report["plans"]) == 4
    return done.out


@pytest.mark.parametrize("mode", ["sweep", "layers", "identity", "diff", "probe"])
@pytest.mark.parametrize("action", WITH_COMMAND, ids=lambda action: action.id)
def test_the_command_prints_what_is_shown(
    action: Action, mode: str, seen: dict[str, State]
) -> None:
    state = seen[mode]
    assert (action.why_not(state) is None) is (mode in (action.only or MODES))
    words = action.command(state)
    if words is None and action.id == "jobs":
        assert not state.jobs
        return
    if words is None:
        assert action.id == "diff"
        assert state.pair is None  # nothing is compared before Diff is opened
        return
    if words[0] == "reexport":
        assert roomless(planned_by(words)) == roomless(shown_plan())
        return
    if "--deep" in words:
        state = seen["deep"]
    probed = seen["probe"].probed
    assert probed is not None and probed.complete
    reports = {"check": state.report, "layers": state.layers, "diff": state.diff,
               "probe": probed.report}  # fmt: skip
    if words[0] == "rule":
        assert printed(words) == api.render(api.rule_table(words[1]))
        return
    report = reports[words[0]]
    if report is None:
        assert words[0] == "layers"
        assert mode == "sweep"  # its report is read when Layers is opened
        return
    assert printed(words, "--json") == api.render(report, "json")
    assert printed(words, *ALL_ROWS[words[0]]) == api.render(report, "text")


def test_the_modes_and_the_copies_were_compared(seen: dict[str, State]) -> None:
    """The test above had a report to compare with, wherever there is one."""
    assert {action.id for action in WITH_COMMAND} == {
        "sweep", "layers", "identity", "diff", "rule", "copy", "export", "rehash", "deep",
        "reexport", "jobs", "probe", "run",
    }  # fmt: skip
    assert seen["deep"].deep
    for mode, report in (("sweep", "report"), ("layers", "layers"), ("diff", "diff")):
        assert getattr(seen[mode], report) is not None
    assert seen["diff"].pair is not None


def test_options_are_part_of_the_command(bug: Path, tmp_path: Path) -> None:
    settings = tmp_path / "team.toml"
    settings.write_text('[[ignore]]\ncode = "CK3"\nreason = "known"\n')
    base = bug.parent / "base"

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        await press(pilot, "y")
        assert app.clipboard == command_line(
            ("check", str(bug), "--base", str(base), "--config", str(settings))
        )
        assert app.state.report is not None
        assert app.state.report.ignored
        words = ACTIONS[0].command(app.state)
        assert words is not None
        assert run(*words, "--json").out == api.render(app.state.report, "json")
        await press(pilot, "2", "y")
        assert app.clipboard == command_line(("layers", str(bug), "--base", str(base)))

    drive(bug, scenario, base=str(base), config=str(settings))


def test_headers_alone_say_no_hash() -> None:
    state = State(Options("x y"))
    words = ACTIONS[0].command(state)
    assert words == ("check", "x y", "--no-hash")
    assert command_line(words) == "ckptdiff check 'x y' --no-hash"


@pytest.mark.parametrize("mode", ["sweep", "layers", "diff"])
def test_an_export_is_what_the_command_writes(
    mode: str, seen: dict[str, State], tmp_path: Path
) -> None:
    state = seen[mode]
    report = export.shown_report(state)
    assert report is not None
    words = next(a for a in ACTIONS if a.id == "export").command(state)
    assert words is not None
    known = export.formats(report)
    assert set(known) >= ({".json", ".txt", ".md"} if mode == "sweep" else {".json", ".txt"})
    for suffix, kind in known.items():
        path = tmp_path / f"report{suffix}"
        export.write(report, path)
        if words[0] == "check":
            assert path.read_bytes() == printed(words, "--format", kind)
        else:
            more = ("--json",) if kind == "json" else ALL_ROWS[words[0]]
            assert path.read_bytes() == printed(words, *more)


def test_export_from_the_keyboard(bug: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    picture = tmp_path / "view.svg"

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        for key, path in (("o", target), ("p", picture)):
            await press(pilot, key)
            app.screen.query_one(Input).value = str(path)
            await press(pilot, "enter")
            await until(pilot, path.exists)
        assert app.state.report is not None
        assert target.read_bytes() == api.render(app.state.report, "json")
        assert picture.read_text().startswith("<svg")
        # Into a checkpoint, and under a suffix that says nothing: refused in words.
        inside = bug / build.SweepSpec().scheme(10) / "report.json"
        for path, word in ((inside, "never"), (tmp_path / "x.docx", "suffix")):
            await press(pilot, "o")
            app.screen.query_one(Input).value = str(path)
            await press(pilot, "enter")
            await until(pilot, lambda: word in screen_text(app))  # noqa: B023
            assert not path.exists()

    drive(bug, scenario, size=(160, 50))


def test_read_only_writes_nothing(bug: Path, tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        for key in ("o", "p", "e"):
            await press(pilot, key)
            assert len(app.screen_stack) == 1
            assert "--read-only" in screen_text(app)

    drive(bug, scenario, size=(160, 50), read_only=True)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_reasons_are_sentences_for_people(seen: dict[str, State]) -> None:
    for action in ACTIONS:
        for state in (State(), *seen.values(), dataclasses.replace(seen["sweep"], mode="jobs")):
            reason = action.why_not(state)
            assert reason is None or len(reason.split()) > 2
