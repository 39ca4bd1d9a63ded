"""Re-exports that run in Jobs: progress, log, result, the look afterwards, cancelling, leaving."""

from __future__ import annotations

import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import SECONDS, press, screen_text, settle, until
from repairing import (
    NAME,
    PERCENTS,
    PROVENANCE,
    SWEEP,
    WHOLE,
    broken_sweep,
    children,
    choose,
    files,
    fits,
    job,
    report_of,
    run,
    sizes,
    words_on,
)
from textual.pilot import Pilot

from ckptdiff import api
from ckptdiff.events import Event, Sink, Started
from ckptdiff.records.plan import PlanReport
from ckptdiff.tui import reexports
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.job_view import status_of
from ckptdiff.tui.screens.dialogs import Confirm
from ckptdiff.tui.widgets.grid import Grid

CHILD = 240  # seconds: a child imports torch, on a machine that may be busy


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return broken_sweep(tmp_path)


# Carrying it out


async def agree(pilot: Pilot[None], *, in_place: bool = True) -> None:
    """Plan what is asked for with a whole donor, and agree."""
    await press(pilot, "e")
    await choose(pilot, "donor", str(WHOLE))
    if in_place:
        await press(pilot, "up", "right")
    await pilot.press("enter")


@sizes
def test_the_founding_bug_is_repaired(copied: Path, size: tuple[int, int]) -> None:
    first, second = copied / NAME.format(10), copied / NAME.format(30)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        before = files(first)
        await press(pilot, "space")
        await agree(pilot)
        await settle(pilot)
        assert app.state.mode == "jobs"
        record = job(app)
        assert status_of(record) == "done"
        assert isinstance(record.result, PlanReport)
        (outcome,) = record.result.outcomes
        text = words_on(app)
        assert "✓ done" in text and "✓ written" in text
        assert outcome.fingerprint is not None and outcome.fingerprint in text
        # Wherever the path is wrapped.
        assert f"{first.name}.broken-1" in text.replace(" ", "")
        assert record.log[0].startswith("prove donors")
        assert any(line.startswith("write: ") for line in record.log)
        fits(app, size)
        # Byte for byte what ModelOpt exported of this subset.
        written = files(first)
        written.pop(PROVENANCE)
        assert written == files(SWEEP / first.name)
        assert files(first.with_name(f"{first.name}.broken-1")) == before
        await press(pilot, "y")
        assert shlex.split(app.clipboard)[1:] == list(record.words)
        # Looked at again: it is well, and the cursor is on the next one that is not.
        await press(pilot, "1")
        assert app.state.row is not None and app.state.row.id == second.name
        assert app.screen.query_one(Grid).key == second.name
        assert app.state.marked == ()
        assert {row.id: row.status for row in app.state.schemes}[first.name] == "ok"
        # And the others, all at once.
        await agree(pilot)
        await settle(pilot)
        assert status_of(job(app)) == "done"
        assert len(app.state.jobs) == 2
        await press(pilot, "1")
        assert "✓ PASS" in screen_text(app)
        await press(pilot, "D")
        assert app.state.report is not None and app.state.report.verdict.complete
        assert not [f for f in app.state.report.findings if f.severity != "info"]
        assert len({row.fingerprint for row in app.state.schemes}) == 4

    run(copied, play, size)
    for percent in PERCENTS:
        written = files(copied / NAME.format(percent))
        written.pop(PROVENANCE)
        assert written == files(SWEEP / NAME.format(percent))


def test_beside_the_originals_which_are_not_planned_again(copied: Path, tmp_path: Path) -> None:
    before = files(copied)
    target = tmp_path / "result.json"

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space")
        await agree(pilot, in_place=False)
        await settle(pilot)
        assert (copied / f"{NAME.format(10)}_v2").is_dir()
        await press(pilot, "o")
        app.screen.query_one("Input").value = str(target)  # type: ignore[attr-defined]
        await press(pilot, "enter")
        await until(pilot, target.exists)
        result = job(app).result
        assert isinstance(result, PlanReport)
        assert target.read_bytes() == api.render(result, "json")
        await press(pilot, "1")
        assert len(app.state.schemes) == 5
        assert reexports.targets(app.state) == tuple(NAME.format(n) for n in (30, 50, 100))

    run(copied, play)
    assert {name: data for name, data in files(copied).items() if "_v2" not in name} == before


def test_what_fails_says_why_and_what_to_do_next(copied: Path) -> None:
    before = files(copied)
    taken = copied / f"{NAME.format(10)}_v2"

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        await choose(pilot, "donor", str(WHOLE))
        taken.mkdir()  # by somebody else, after the plan was made
        await press(pilot, "enter")
        assert status_of(job(app)) == "failed"
        text = words_on(app)
        assert "✗ failed" in text
        assert "is there already" in text and "next Remove it, or name --out." in text

    run(copied, play)
    taken.rmdir()
    assert files(copied) == before


def test_a_donor_that_is_not_what_base_gives(copied: Path, tmp_path: Path) -> None:
    before = files(copied)
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    data = bytearray((donor / "model.safetensors").read_bytes())
    data[-1] ^= 0x55
    (donor / "model.safetensors").write_bytes(data)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "j", "j", "j", "space", "e")
        await choose(pilot, "donor", str(donor))
        await press(pilot, "enter")
        assert status_of(job(app)) == "failed"
        assert "cannot be used" in job(app).failure
        assert "not what base gives" in words_on(app) and "Nothing was changed" in words_on(app)
        await press(pilot, "n")
        assert app.state.job == job(app).name

    run(copied, play)
    assert files(copied) == before


# Stopping


class Held:
    """A re-export that waits where it begins to write, until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, sink: Sink, say: reexports.Say) -> Sink:
        def heard(event: Event) -> None:
            sink(event)
            if isinstance(event, Started) and event.stage == "write":
                self.reached.set()
                self.go.wait(SECONDS)

        return heard


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    gate = Held()
    monkeypatch.setattr(reexports, "_narrated", gate)
    yield gate
    gate.go.set()


@sizes
def test_it_is_cancelled_in_the_middle(copied: Path, held: Held, size: tuple[int, int]) -> None:
    before = files(copied)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space")
        await agree(pilot)
        await until(pilot, lambda: held.reached.is_set() and job(app).progress is not None)
        await until(pilot, lambda: "… running" in screen_text(app))
        assert "x cancels it" in words_on(app)
        fits(app, size)
        # A second one waits until this is over; everything else can be done.
        await pilot.press("e")
        await until(pilot, lambda: "one is written at a time" in words_on(app))
        await pilot.press("2")
        await until(pilot, lambda: "mismatches" in screen_text(app))
        await pilot.press("6", "x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "thrown away" in words_on(app)
        await pilot.press("escape")
        await pilot.pause()
        assert job(app).runs and not job(app).stopping
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: job(app).stopping)
        assert "stopping" in screen_text(app)
        held.go.set()
        await until(pilot, lambda: not job(app).runs)
        await settle(pilot)
        assert status_of(job(app)) == "cancelled"
        assert "nothing was changed" in words_on(app)
        assert app.state.mode == "jobs"

    run(copied, play, size)
    assert files(copied) == before


@pytest.mark.parametrize("keys", [("q", "enter"), ("ctrl+c", "ctrl+c")], ids=" ".join)
def test_leaving_asks_first_and_cancels_cleanly(
    copied: Path, held: Held, keys: tuple[str, str]
) -> None:
    before = files(copied)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space")
        await agree(pilot)
        await until(pilot, held.reached.is_set)
        await pilot.press(keys[0])
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "Leave, and cancel what runs?" in words_on(app)
        assert "re-export of top10" in words_on(app)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert app.is_running and job(app).runs
        await pilot.press(keys[0])
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press(keys[1])
        await until(pilot, lambda: job(app).stopping)
        assert app.is_running  # until it has cleaned up behind itself
        held.go.set()
        await until(pilot, lambda: not app.is_running)
        assert not job(app).runs

    run(copied, play)
    assert files(copied) == before


def test_an_app_that_is_ended_waits_for_what_writes(copied: Path, held: Held) -> None:
    before = files(copied)
    threads: list[threading.Thread] = []

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space")
        await agree(pilot)
        await until(pilot, held.reached.is_set)
        (thread,) = [t for t in threading.enumerate() if t.name == "ckptdiff-re-export 1"]
        assert not thread.daemon  # so that the interpreter waits for it
        threads.append(thread)
        app.exit()  # as a browser that is closed does

    run(copied, play)
    held.go.set()
    threads[0].join(SECONDS)
    assert not threads[0].is_alive()
    assert files(copied) == before


# The real engine


@pytest.mark.timeout(900)
def test_modelopt_runs_in_jobs_and_can_be_cancelled(
    copied: Path,
) -> None:
    scheme = copied / NAME.format(10)
    before = files(copied)

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e", "right", "right")
        assert report_of(app).plans[0].engine == "modelopt"
        assert "was asked for" in words_on(app)
        await pilot.press("enter")
        await until(pilot, lambda: bool(children()), CHILD)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm) or not job(app).runs, CHILD)
        await pilot.press("enter")
        await until(pilot, lambda: not job(app).runs, CHILD)
        assert status_of(job(app)) == "cancelled"
        assert not children()
        await settle(pilot)
        assert files(copied) == before

        await pilot.press("e")
        await settle(pilot)
        await press(pilot, "right", "right")
        await pilot.press("enter")
        await until(pilot, lambda: not job(app).runs, CHILD)
        await settle(pilot)
        record = job(app)
        assert status_of(record) == "done", record
        assert any(line.startswith("Inserted ") for line in record.log)  # said by ModelOpt
        for stage in ("import", "load", "calibrate", "pack", "prove"):
            assert any(line.split(":")[0] == stage for line in record.log), record.log
        assert isinstance(record.result, PlanReport)
        (outcome,) = record.result.outcomes
        assert {"import", "calibrate", "pack"} <= outcome.seconds.keys()
        assert "took import" in words_on(app)

    run(copied, play)
    report = api.check(
        scheme.with_name(f"{scheme.name}_v2"), base=copied.parent / "base", deep=True
    )
    assert report.verdict.status == "pass" and report.verdict.complete
