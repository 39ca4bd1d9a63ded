"""Probe and Jobs: there to be seen, with the reason why they cannot be used yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.widget import Widget

from ckptdiff.tui.actions import BY_ID
from ckptdiff.tui.screens.mode import Framed
from ckptdiff.tui.text import Line, wrapped
from ckptdiff.tui.widgets.panel import ScrollPanel


class _Later(Framed):
    """What a mode will do, and why it does not yet."""

    TEXT = ""

    def body(self) -> Iterable[Widget]:
        yield ScrollPanel(self._lines, id="page")

    def _lines(self, width: int, rows: int) -> Sequence[Line]:
        reason = BY_ID[self.state.mode].why_not(self.state) or ""
        return [
            [("disabled ", "warning"), (line, "bold")] if n == 0 else [(line, "bold")]
            for n, line in enumerate(wrapped(reason, max(20, width - 10)))
        ] + [[], *([(line, "dim")] for line in wrapped(self.TEXT, width))]


class ProbeScreen(_Later):
    """Mode 5."""

    TEXT = (
        "Runs a reference and other schemes on the same prompts and shows what that does to "
        "outputs: KL, top-1 agreement, perplexity, and the KL over coverage as a curve."
    )


class JobsScreen(_Later):
    """Mode 6."""

    TEXT = "Shows re-exports and probes with their plan, progress, log and result."
