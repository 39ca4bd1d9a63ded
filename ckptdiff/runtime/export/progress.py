"""Which stage an export is in: told to the parent as events, and kept as seconds for the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ckptdiff.events import Advanced, Finished, Sink, Started, Unit


class Progress:
    """`stage` is the innermost that runs, or the one that was left early: where something failed.
    `seconds` has what each took, without the stages inside it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._open: list[str] = []
        self._since = time.monotonic()
        self.stage = "start"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def during(self, stage: str, total: int | None, unit: Unit) -> Iterator[None]:
        """A stage from here to the end of the block. Stages of one name add up."""
        outer, early = self.stage, False
        self._charge()
        self._open.append(stage)
        self.stage = stage
        self._sink(Started(stage, total, unit))
        try:
            yield
        except BaseException:  # of a generator that is dropped, too
            early = True
            raise
        finally:
            self._charge()
            if stage in self._open:  # with all that a failure left open inside it
                del self._open[self._open.index(stage) :]
            if not early:
                self.stage = outer
            self._sink(Finished(stage))

    def advance(self, amount: int = 1) -> None:
        """The stage that runs got on."""
        self._sink(Advanced(self.stage, amount))

    def _charge(self) -> None:
        """Put what has passed on the account of the innermost stage."""
        now = time.monotonic()
        if self._open:
            stage = self._open[-1]
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._since, 3)
        self._since = now


@contextmanager
def hearing(library: object, name: str, tell: Callable[[Any], None]) -> Iterator[None]:
    """Inside the block, `tell` hears of each call of the function `name` of a library, with its
    first argument. Other versions may not have that function: then nothing is heard."""
    original = getattr(library, name, None)
    if original is None:
        yield
        return

    def called(first: Any, *arguments: Any, **keywords: Any) -> Any:
        found = original(first, *arguments, **keywords)
        tell(first)
        return found

    setattr(library, name, called)
    try:
        yield
    finally:
        setattr(library, name, original)
