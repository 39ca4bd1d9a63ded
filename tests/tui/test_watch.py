"""Directories that appear, change and vanish while the app is open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import build
import pytest
from driving import drive, press, screen_text, settle, until
from textual.pilot import Pilot

from ckptdiff.tui.actions import BY_ID
from ckptdiff.tui.app import CkptdiffApp

SPEC = build.SweepSpec()


def app_of(pilot: Pilot[None]) -> CkptdiffApp:
    assert isinstance(pilot.app, CkptdiffApp)
    return pilot.app


async def look(pilot: Pilot[None]) -> None:
    """What the timer of the watch does every two seconds."""
    app_of(pilot).work.poll()
    await settle(pilot)


def test_nothing_changed_is_nothing_read(sweep: Path) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        before = app_of(pilot).state.report
        await look(pilot)
        assert app_of(pilot).state.report is before
        assert not app_of(pilot).state.changed

    drive(sweep, scenario)


def test_a_scheme_that_changes_is_judged_again_and_marked(sweep: Path) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        assert "✓ PASS" in screen_text(app)
        build.copy_weights(sweep, 100, (10, 30, 50))
        await look(pilot)
        assert app.state.changed == {SPEC.scheme(n) for n in (10, 30, 50)}
        text = screen_text(app)
        assert "4 schemes carry one set of weights" in text
        assert "~ 3 changed" in text
        assert sum(line.startswith(" ~") for line in text.splitlines()) == 3
        await press(pilot, "escape")
        assert not app.state.changed

    drive(sweep, scenario)


def test_a_scheme_that_appears_and_one_that_goes(sweep: Path, tmp_path: Path) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        name = SPEC.scheme(70)
        build.write_scheme(
            sweep / name,
            build.fp8_tensors(SPEC.selected(70)),
            manifest=build.coverage_manifest(name, 70, SPEC.ranking),
            baseline=build.baseline_manifest(SPEC.ranking),
        )
        await look(pilot)
        assert app.state.changed == {name}
        assert len(app.state.schemes) == 5
        assert "all follow their manifests" in screen_text(app)
        shutil.rmtree(sweep / SPEC.scheme(30))
        await look(pilot)
        assert app.state.gone == (SPEC.scheme(30),)
        assert len(app.state.schemes) == 4
        assert "1 gone" in screen_text(app)

    drive(sweep, scenario)


def test_the_cursor_stays_on_its_scheme(sweep: Path) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        await press(pilot, "j", "j")
        here = app.state.scheme
        assert here == SPEC.scheme(50)
        shutil.rmtree(sweep / SPEC.scheme(10))
        await look(pilot)
        assert app.state.scheme == here

    drive(sweep, scenario)


@pytest.mark.parametrize("keys", [(), ("2",), ("3",), ("4",), ("enter",), ("2", "enter")])
def test_a_root_that_is_deleted_while_it_is_open(sweep: Path, keys: tuple[str, ...]) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        await press(pilot, *keys)
        shutil.rmtree(sweep)
        await look(pilot)
        text = " ".join(screen_text(app).split())
        assert "is not there, or no directory; shown as it was before" in text
        assert "defect" not in text
        # Whatever reads now says why it cannot, and no key is lost.
        for key in ("1", "j", "enter", "escape", "2", "enter", "enter", "escape", "3", "4", "r"):
            await press(pilot, key)
        await press(pilot, "1", "R")
        text = " ".join(screen_text(app).split())
        assert "defect" not in text
        assert app.is_running
        # It comes back, and so does the verdict.
        build.write_sweep(sweep.parent / "again")
        (sweep.parent / "again" / "quantized").rename(sweep)
        await look(pilot)
        assert app.state.problem == ""
        assert "✓ PASS" in screen_text(app)

    drive(sweep, scenario)


def test_shards_that_vanish_under_a_page(sweep: Path) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        await press(pilot, "2", "enter")
        for path in sweep.glob("*/*.safetensors"):
            path.unlink()
        await press(pilot, "enter")
        await until(pilot, lambda: "!" in screen_text(app))
        assert "defect" not in screen_text(app)
        await look(pilot)
        await press(pilot, "1")
        assert "CK106" in screen_text(app)

    drive(sweep, scenario)


def test_an_empty_root_waits_for_its_first_scheme(tmp_path: Path) -> None:
    root = tmp_path / "later"
    root.mkdir()

    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        assert "holds no checkpoint" in " ".join(screen_text(app).split())
        for key in "12345":
            await press(pilot, key)
            assert "nothing to show yet" in screen_text(app), key
            assert "…" not in screen_text(app), key
        assert "holds no checkpoint" in (BY_ID["deep"].why_not(app.state) or "")
        await press(pilot, "6", "question_mark", "escape", "1")
        sweep = build.write_sweep(tmp_path / "made")
        os.rename(sweep / SPEC.scheme(30), root / SPEC.scheme(30))  # noqa: PTH104
        await look(pilot)
        assert len(app.state.schemes) == 1
        assert app.state.problem == ""

    drive(root, scenario)
