"""Sweep: the schemes, what is wrong with each, and declared against actual coverage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Horizontal
from textual.timer import Timer
from textual.widget import Widget

from ckptdiff import api
from ckptdiff.tui.actions import findings_of
from ckptdiff.tui.screens.mode import NOTHING_YET, Framed
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line, short_names
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel

if TYPE_CHECKING:  # what draws a report is imported when there is one: the first frame has none
    from ckptdiff.records.detail import SchemeDetail
    from ckptdiff.records.report import CheckReport, IdentityRow, SchemeRow
    from ckptdiff.tui.widgets.staircase import Step

# Seconds that the cursor must rest on a scheme before its documents are read.
_REST = 0.2


class SweepScreen(Framed):
    """The first screen: it must answer "can I use these?" before a key is pressed."""

    FIELDS: ClassVar[tuple[str, ...]] = ("status", "rule", "dtype")

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[CheckReport | None, bool, Sequence[IdentityRow]] = (None, False, ())
        self._details: dict[str, SchemeDetail] = {}
        self._timer: Timer | None = None

    def body(self) -> Iterable[Widget]:
        yield Grid(moved=self._moved, opened=self._opened, placeholder="reading headers …")
        with Horizontal(id="below"):
            yield ScrollPanel(self._detail, id="detail")
            yield Panel(self._chart, id="side")

    def draw(self, state: State) -> None:
        grid = self.query_one(Grid)
        hashing = not state.hashed and "hash" not in state.failures
        now = (state.report, hashing, state.identity)
        if state.report is not None and self._shown != now:
            self._shown = now
            self._details.clear()
            from ckptdiff.tui.tables import sweep_store

            grid.show(sweep_store(state.report, hashing, state.identity))
            self.query_one("#side", Panel).redraw()
            grid.refresh(layout=True)
        elif state.stuck:
            grid.show(None, NOTHING_YET)
        if state.seek is not None:
            self._go_to(state.seek)
        grid.marked, grid.changed = state.marked, state.changed
        grid.refresh()

    def _go_to(self, scheme: str) -> None:
        """Put the cursor on a scheme, unless the filter hides it."""
        grid = self.query_one(Grid)
        place = grid.store.row_of(scheme) if grid.store is not None else None
        if place is not None:
            grid.move_to(place)
        self.owner.state = replace(self.owner.state, seek=None)

    def _moved(self) -> None:
        self.owner.point_at(self.query_one(Grid).key)
        self.query_one("#detail", Panel).show(self._detail)
        if self._timer is not None:
            self._timer.stop()
        if self.state.scheme is not None and self.state.scheme not in self._details:
            self._timer = self.set_timer(_REST, self._read)

    async def _opened(self) -> None:
        from ckptdiff.tui.screens.pages import SchemePage

        if (scheme := self.state.scheme) is not None:
            await self.app.push_screen(SchemePage(scheme))

    def _read(self) -> None:
        if (scheme := self.state.scheme) is not None:
            path = self.state.path_of(scheme)
            self.owner.bridge.start("details", lambda sink, cancel: (scheme, api.details(path)))

    def on_result(self, job: str, result: object) -> None:
        from ckptdiff.records.detail import SchemeDetail

        match job, result:
            case "details", (str(scheme), SchemeDetail() as detail):
                self._details[scheme] = detail
                self.query_one("#detail", Panel).redraw()

    def _detail(self, width: int, rows: int) -> Sequence[Line]:
        row = self.state.row
        if row is None:
            return ()
        from ckptdiff.tui.describe import scheme_lines

        found = findings_of(self.state, row.id)
        return scheme_lines(row, found, self._details.get(row.id), width)

    def _chart(self, width: int, rows: int) -> Sequence[Line]:
        if self.state.report is None:
            return ()
        from ckptdiff.tui.widgets.staircase import staircase

        return staircase(steps(self.state.schemes), width, rows)


def steps(rows: Sequence[SchemeRow]) -> list[Step]:
    """The schemes that declare or hold a share, the least declared first."""
    names = short_names([row.id for row in rows])
    found = [_step(row, name) for row, name in zip(rows, names, strict=True)]
    judged = [step for step in found if step.declared is not None or step.actual is not None]
    return sorted(judged, key=lambda step: 2.0 if step.declared is None else step.declared)


def _step(row: SchemeRow, name: str) -> Step:
    from ckptdiff.tui.widgets.staircase import Step

    declared, actual = row.declared, row.actual
    says = holds = None
    if declared is not None and declared.selected is not None and declared.total:
        says = declared.selected / declared.total
    elif declared is not None and declared.percent is not None:
        says = declared.percent / 100
    if actual is not None and actual.total:
        holds = actual.quantized / actual.total
    step = Step(name, says, holds, agrees=row.status != "error")
    if declared is None or declared.selected is None or actual is None:
        return step
    return replace(step, agrees=declared.selected == actual.quantized and row.status != "error")
