"""Which stage an export is in: told to the parent as events, and kept as seconds for the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ckptdiff.events import Advanced, Finished, Sink, Started, Unit


class Progress:
    """`stage` is the one that runs, or the last one that ran."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.stage = "start"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def during(self, stage: str, total: int | None, unit: Unit) -> Iterator[None]:
        """A stage from here to the end of the block. Stages of one name add up."""
        self.stage = stage
        self._sink(Started(stage, total, unit))
        began = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + taken, 3)
            self._sink(Finished(stage))

    def advance(self, amount: int = 1, item: str = "") -> None:
        """The stage that runs got on."""
        self._sink(Advanced(self.stage, amount, item))
