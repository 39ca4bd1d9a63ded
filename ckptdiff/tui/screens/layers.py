"""Layers: modules x schemes, the dtype of each cell, and which ones a manifest contradicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from ckptdiff.records.layers import LayersReport
from ckptdiff.tui.describe import cell_lines
from ckptdiff.tui.screens.mode import NOTHING_YET, Framed
from ckptdiff.tui.screens.pages import ModulePage
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel


class LayersScreen(Framed):
    """The grid of dtypes. The store comes from the app, which builds it in a thread."""

    FIELDS: ClassVar[tuple[str, ...]] = ("dtype", "status", "rule")

    def __init__(self) -> None:
        super().__init__()
        self._shown: LayersReport | None = None

    def body(self) -> Iterable[Widget]:
        yield Grid(
            moved=self._moved, opened=self._opened, cells=True, placeholder="reading headers …"
        )
        yield ScrollPanel(self._detail, id="below")

    def draw(self, state: State) -> None:
        if state.layers is not None and state.layers is not self._shown:
            first, self._shown = self._shown is None, state.layers
            self.query_one(Grid).show(self.owner.stores["layers"])
            if first and state.layers.mismatches:
                self.query_one(Grid).next_fault(1)
        elif state.layers is None and (state.stuck or "layers" in state.failures):
            self.query_one(Grid).show(None, NOTHING_YET)

    @property
    def count(self) -> str:
        if self._shown is None:
            return super().count
        return f"{self._shown.mismatches:,} mismatches, {super().count}"

    def _moved(self) -> None:
        self.query_one("#below", Panel).show(self._detail)

    def _detail(self, width: int, rows: int) -> Sequence[Line]:
        grid, report = self.query_one(Grid), self._shown
        if report is None or grid.row is None:
            return ()
        line, column = report.modules[grid.row], grid.across - 1
        return cell_lines(line.module, report.schemes[column], line.cells[column], width)

    async def _opened(self) -> None:
        grid, report = self.query_one(Grid), self._shown
        if report is not None and grid.row is not None:
            scheme = report.schemes[grid.across - 1]
            await self.app.push_screen(ModulePage(scheme, report.modules[grid.row].module))
