"""Drives the app without a terminal: presses keys, waits for its work, reads its screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.state import Options

SAMPLES = Path(__file__).parents[1] / "samples"
COPIED = SAMPLES / "copied"
NARROW, WIDE = (80, 24), (160, 50)
SECONDS = 30

Scenario = Callable[["Pilot[None]"], Awaitable[None]]
Play = Callable[["Pilot[None]", CkptdiffApp], Awaitable[None]]

sizes = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "160x50"])


def make(root: Path | str, **options: Any) -> CkptdiffApp:
    """The app on `root`, without the timer that watches unless it is asked for."""
    return CkptdiffApp(Options(root=str(root), **{"watch": False, **options}))


def drive(
    root: Path | str, scenario: Scenario, size: tuple[int, int] = NARROW, **options: Any
) -> CkptdiffApp:
    """Run `scenario` once everything that the app does by itself is done."""
    app = make(root, **options)

    async def play() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await settle(pilot)
            await scenario(pilot)
            # Nothing comes in any more while widgets are taken away, which tests do by themselves.
            app.bridge.close()
            await pilot.pause()

    asyncio.run(play())
    return app


def app_of(pilot: Pilot[None]) -> CkptdiffApp:
    assert isinstance(pilot.app, CkptdiffApp)
    return pilot.app


def run(root: Path, play: Play, size: tuple[int, int] = NARROW, **options: object) -> None:
    """As `drive`, for a scenario that wants the app too."""

    async def scenario(pilot: Pilot[None]) -> None:
        await play(pilot, app_of(pilot))

    drive(root, scenario, size, **options)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until no job runs and every message is handled."""
    app = app_of(pilot)
    await pilot.pause()
    deadline = time.monotonic() + SECONDS
    while app.bridge.busy:
        assert time.monotonic() < deadline, screen_text(app)
        await asyncio.sleep(0.002)  # lets the loop take messages in
    await pilot.pause()


async def until(pilot: Pilot[None], holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something holds; fail when it does not within that time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, screen_text(pilot.app)
        await pilot.pause(0.01)


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys one by one, and wait for what each of them starts."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def fits(app: CkptdiffApp, size: tuple[int, int]) -> None:
    """Nothing is wider than the screen, and the keys are on its last line."""
    shown = lines(app)
    assert len(shown) == size[1]
    assert {len(line) for line in shown} == {size[0]}
    assert "? help" in shown[-1]


def lines(app: Any) -> list[str]:
    """The screen as lines of text, every one as wide as the screen."""
    width, height = app.size
    found = ["".join(s.text for s in strip) for strip in _strips(app)][:height]
    return [line + " " * (width - cell_len(line)) for line in found]


def _strips(app: Any) -> Any:
    return app.screen._compositor.render_strips(app.size)


def screen_text(app: Any) -> str:
    """The screen as one text, for looking for words."""
    return "\n".join(line.rstrip() for line in lines(app))
