"""What tests of probes in the app share: Mode Probe on the screen, and reports played back."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driving import NARROW, WIDE, drive, lines, press
from textual.pilot import Pilot

from ckptdiff.errors import CkptdiffError
from ckptdiff.events import Advanced, Finished, Started
from ckptdiff.records.probe import ProbeReport
from ckptdiff.tui import probing
from ckptdiff.tui.app import CkptdiffApp

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
