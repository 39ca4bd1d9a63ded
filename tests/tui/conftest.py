"""Probes for the tests of Mode Probe: computed once, and played back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driving import SAMPLES
from playback import Playback

from ckptdiff import api
from ckptdiff.records.probe import ProbeReport
from ckptdiff.tui import bridge


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
