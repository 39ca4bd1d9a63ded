"""Jobs: re-exports and probes that run or ran, with plan, progress, log and result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.containers import Container
from textual.widget import Widget

from ckptdiff.tui.job_view import job_lines, jobs_store, log_lines
from ckptdiff.tui.running import clock
from ckptdiff.tui.screens.mode import Framed
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import LogPanel, ScrollPanel

_EMPTY = "nothing runs or ran; e plans a re-export, and Probe (5) runs probes"


class JobsScreen(Framed):
    """Mode 6: a row a job; how the one under the cursor is, and what it says."""

    FIELDS: ClassVar[tuple[str, ...]] = ("status",)

    def __init__(self) -> None:
        super().__init__()
        self._shown: object = None

    def body(self) -> Iterable[Widget]:
        yield Grid(moved=self._moved, placeholder=_EMPTY)
        with Container(id="below"):
            yield ScrollPanel(self._detail, id="detail")
            yield LogPanel(self._log, id="log")

    def draw(self, state: State) -> None:
        if state.jobs == self._shown:
            return
        self._shown = state.jobs
        grid = self.query_one(Grid)
        wanted, rows = state.job, len(grid.store or ())
        if state.jobs:
            grid.show(jobs_store(state.jobs, clock()))
        place = grid.store.row_of(wanted) if grid.store is not None and wanted else None
        if place is not None:
            grid.move_to(place)
        if len(grid.store or ()) != rows:
            grid.refresh(layout=True)
        self._redraw()

    def _moved(self) -> None:
        if (job := self.query_one(Grid).key) != self.state.job and job is not None:
            self.owner.state = replace(self.state, job=job)
            self.query_one("#detail", ScrollPanel).show(self._detail)
            self.query_one("#log", LogPanel).show(self._log)
            self.refresh_frame()

    def _redraw(self) -> None:
        self.query_one("#detail", ScrollPanel).redraw()
        self.query_one("#log", LogPanel).redraw()

    def _detail(self, width: int, rows: int) -> Sequence[Line]:
        record = self.state.record(self.state.job)
        return () if record is None else job_lines(record, width)

    def _log(self, width: int, rows: int) -> Sequence[Line]:
        return log_lines(self.state.record(self.state.job), width)
