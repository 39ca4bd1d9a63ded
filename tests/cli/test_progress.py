"""The line on a terminal: shown in time, whatever the stages are, and never for long after."""

from __future__ import annotations

import pytest

from ckptdiff.cli import progress
from ckptdiff.events import Advanced, Event, Finished, Started


class Clock:
    """A clock that is set, and what was written to the terminal, by time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.said: list[tuple[float, str]] = []
        patch.setattr("ckptdiff.cli.progress.time.monotonic", lambda: self.now)
        patch.setattr("ckptdiff.cli.progress.narrate", self._narrate)

    def _narrate(self, text: str) -> None:
        self.said.append((round(self.now - 100, 3), text.strip("\r").removesuffix("\x1b[K")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def play(clock: Clock, *events: tuple[float, Event]) -> list[tuple[float, str]]:
    line = progress._Line()
    for at, event in events:
        clock.now = 100 + at
        line(event)
    return clock.said


def test_what_is_over_soon_is_not_shown(clock: Clock) -> None:
    assert not play(
        clock,
        (0.0, Started("hash", 2, "files")),
        (0.3, Advanced("hash", 1)),
        (0.4, Advanced("hash", 1)),
        (0.4, Finished("hash")),
    )


def test_many_short_stages_are_shown(clock: Clock) -> None:
    """As of schemes that are probed one after the other."""
    events: list[tuple[float, Event]] = []
    for number in range(5):
        at = number * 0.4
        events += [(at, Started(f"probe {number}", 4, "prompts")),
                   (at + 0.3, Advanced(f"probe {number}", 4)),
                   (at + 0.4, Finished(f"probe {number}"))]  # fmt: skip
    shown = [(at, text) for at, text in play(clock, *events) if text]
    assert [at for at, _ in shown] == [0.7, 1.1, 1.5, 1.9]
    assert shown[0][1].startswith("probe 1: 4 prompts of 4, 100%")


def test_a_stage_without_steps_shows_its_time(clock: Clock) -> None:
    shown = play(
        clock,
        (0.0, Started("import", None, "files")),
        (0.6, Advanced("import", 0)),
        (3.2, Advanced("import", 0)),
        (3.3, Finished("import")),
    )
    assert shown == [(0.6, "import: 1 s"), (3.2, "import: 3 s"), (3.3, "")]


def test_what_goes_on_after_an_inner_stage_is_the_outer_one(clock: Clock) -> None:
    shown = play(
        clock,
        (0.0, Started("search", None, "modules")),
        (0.1, Started("score", 2, "batches")),
        (2.1, Advanced("score", 2)),
        (2.2, Finished("score")),
        (4.2, Advanced("search", 0)),
    )
    assert shown[-1] == (4.2, "search: 2 s")


def test_a_step_that_takes_long_is_still_shown(clock: Clock) -> None:
    shown = play(
        clock,
        (0.0, Started("score", 26, "batches")),
        (1.0, Advanced("score", 0)),
        (2.0, Advanced("score", 1)),
        (3.0, Advanced("score", 0)),
    )
    assert [text for _, text in shown] == [
        "score: 1 s",
        "score: 1 batches of 26, 4%, 0.5 batches/s, 50 s left",
        "score: 1 batches of 26, 4%, 0.3 batches/s, 75 s left",
    ]
