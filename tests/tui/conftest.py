"""An app that is waited for no longer than it works, and probes computed once and played back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import textual.app
import textual.pilot
from driving import SAMPLES
from playback import Playback
from textual._context import active_app

from ckptdiff import api
from ckptdiff.records.probe import ProbeReport
from ckptdiff.tui import bridge

# In a row: once may be a moment between a message and its answer.
QUIET_LOOKS, LOOK_SECONDS = 8, 0.002


async def loop_is_idle(*_: float) -> None:
    """Wait until no callback is ready to run in the loop of the app, and the next frame brings
    none: all messages are handled.

    Textual's own `wait_for_idle` looks at the CPU time of the process instead, in steps of 20 ms,
    and gives up after a second. That was three quarters of the time of these tests.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    app, quiet = active_app.get(), 0
    while quiet < QUIET_LOOKS:
        await asyncio.sleep(LOOK_SECONDS)
        quiet = 0 if ready else quiet + 1
        if quiet and app.screen_stack:
            app.screen._on_timer_update()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (textual.app, textual.pilot):
        monkeypatch.setattr(module, "wait_for_idle", loop_is_idle)


@pytest.fixture(scope="session")
def computed() -> dict[str, ProbeReport]:
    """What a probe of either sample finds, on a few prompts."""
    base = SAMPLES / "base"
    return {
        name: api.probe(
            sweep=SAMPLES / name, base=base, limit=4, device="cpu", perplexity=True, cache=False
        )
        for name in ("sweep", "copied")
    }


@pytest.fixture()
def play_back(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Playback]:
    def start(*arguments: Any) -> Playback:
        playback = Playback(*arguments)
        monkeypatch.setattr(bridge, "INTERVAL", 0.0)  # nothing happens while it waits
        monkeypatch.setattr(api, "probe", playback, raising=False)
        return playback

    return start
