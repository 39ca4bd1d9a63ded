"""What a long job says while it runs, and how it is told to stop.

Jobs know nothing of terminals: they send frozen events to a `Sink`, and look at a
`CancelToken` often enough that a user who asks them to stop never waits. Rendering
(bars, JSON lines, Textual messages) belongs to the front ends and must not move here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple

from ckptdiff.errors import Cancelled

Unit = Literal["bytes", "files", "checkpoints", "prompts", "batches", "modules"]


class Started(NamedTuple):
    """A stage began. `total` is in `unit`, or None when it cannot be known."""

    stage: str
    total: int | None
    unit: Unit


class Advanced(NamedTuple):
    """A stage got on by `amount` (in the unit of its `Started` event)."""

    stage: str
    amount: int
    item: str = ""


class Finished(NamedTuple):
    """A stage is over."""

    stage: str


Event = Started | Advanced | Finished
Sink = Callable[[Event], None]


def silent(event: Event) -> None:
    """The sink for callers who do not want to hear anything."""


class CancelToken:
    """A flag that one thread sets and others look at."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` once somebody has called `cancel`."""
        if self._event.is_set():
            raise Cancelled()
