"""Whole screens as pictures, and the committed screenshots held to what the app draws."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import NARROW, SAMPLES, WIDE, make, press, settle, until
from textual.pilot import Pilot

from ckptdiff.tui.screens.sweep import SweepScreen

sys.path.insert(0, str(SAMPLES))

import screenshots

SCREENS: dict[str, tuple[str, str, tuple[int, int], tuple[str, ...]]] = {
    "sweep-80x24": ("samples/copied", "dark", NARROW, ()),
    "sweep-160x50": ("samples/copied", "light", WIDE, ()),
    "layers-80x24": ("samples/copied", "dark", NARROW, ("2",)),
    "identity-80x24": ("samples/copied", "light", NARROW, ("3",)),
    "help-80x24": ("samples/copied", "dark", NARROW, ("question_mark",)),
}


@pytest.mark.parametrize("name", list(SCREENS))
def test_a_whole_screen(
    name: str, snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, theme, size, keys = SCREENS[name]
    monkeypatch.chdir(SAMPLES.parent)
    app = make(root, theme=theme)

    async def before(pilot: Pilot[None]) -> None:
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, SweepScreen)
        await until(pilot, lambda: app.state.scheme in screen._details)
        await press(pilot, *keys)

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("name", list(screenshots.PICTURES))
def test_the_committed_screenshots_are_what_the_app_draws(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SAMPLES.parent)
    drawn = asyncio.run(screenshots.picture(name))
    committed = (SAMPLES / "screenshots" / f"{name}.svg").read_text()
    assert drawn == committed, "run `python samples/screenshots.py` and look at the pictures"


def test_the_pictures_name_no_place_and_fetch_nothing() -> None:
    for path in sorted((SAMPLES / "screenshots").glob("*.svg")):
        text = path.read_text()
        assert str(Path.home()) not in text
        assert str(SAMPLES.parent) not in text
        assert "@font-face" not in text
        assert text.count("http") == text.count("http://www.w3.org") + text.count(
            "https://www.textualize.io"
        )
