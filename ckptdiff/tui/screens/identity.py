"""Identity: scheme x scheme, the share of bytes that are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from ckptdiff.records.detail import Overlap
from ckptdiff.tui.describe import pair_lines
from ckptdiff.tui.letters import letters_store
from ckptdiff.tui.screens.mode import NOTHING_YET, Framed
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line
from ckptdiff.tui.widgets.heatmap import HeatMap
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel


class IdentityScreen(Framed):
    """The heat map, and what the two schemes of a cell have in common."""

    FIELDS: ClassVar[tuple[str, ...]] = ("status",)

    def __init__(self) -> None:
        super().__init__()
        self._shown: Overlap | None = None

    def body(self) -> Iterable[Widget]:
        yield HeatMap(
            moved=self._moved, opened=self._opened, cells=True, placeholder="waiting for hashes …"
        )
        yield ScrollPanel(self._detail, id="below")

    def draw(self, state: State) -> None:
        if state.stuck:
            self.query_one(HeatMap).show(None, NOTHING_YET)
        if state.overlap is None and state.letters and not state.hashed:
            self._shown = None
            ids = [row.id for row in state.schemes]
            self.query_one(HeatMap).show(letters_store(ids, state.letters))
            return
        if state.overlap is None or state.overlap is self._shown or state.report is None:
            return
        first, self._shown = self._shown is None, state.overlap
        letters = {row.id: row.identity for row in state.schemes}
        clashing = {id for f in state.report.findings if f.code == "CK501" for id in f.schemes}
        self.query_one(HeatMap).show_overlap(state.overlap, letters, clashing, state.base_id)
        if first:
            self.query_one(HeatMap).next_fault(1)

    def _moved(self) -> None:
        self.query_one("#below", Panel).show(self._detail)

    def _detail(self, width: int, rows: int) -> Sequence[Line]:
        grid = self.query_one(HeatMap)
        if self._shown is None or grid.row is None:
            return ()
        return pair_lines(self._shown, grid.row, grid.across - 1, width)

    async def _opened(self) -> None:
        grid = self.query_one(HeatMap)
        if self._shown is not None and grid.row is not None and grid.row != grid.across - 1:
            ids = self._shown.schemes
            await self.owner.compare(ids[grid.row], ids[grid.across - 1])
