"""Diff: two checkpoints tensor by tensor, the largest error first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from ckptdiff.records.delta import DiffReport
from ckptdiff.tui.describe import delta_lines, histogram_lines
from ckptdiff.tui.screens.mode import NOTHING_YET, Framed
from ckptdiff.tui.screens.pages import DeltaPage, TensorPage
from ckptdiff.tui.state import State
from ckptdiff.tui.text import Line, wrapped
from ckptdiff.tui.widgets.curve import curve
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import Panel, ScrollPanel


class DiffScreen(Framed):
    """Tensors with their errors, the statistics of one, and the errors of all."""

    FIELDS: ClassVar[tuple[str, ...]] = ("status", "dtype")

    def __init__(self) -> None:
        super().__init__()
        self._shown: DiffReport | None = None

    def body(self) -> Iterable[Widget]:
        yield Grid(moved=self._moved, opened=self._opened)
        with Horizontal(id="below"):
            yield ScrollPanel(self._detail, id="detail")
            yield Panel(self._chart, id="side")

    @property
    def crumbs(self) -> Sequence[str]:
        pair = self.state.pair
        if pair is None:
            return ("Diff",)
        one, other = map(self.state.label, pair)
        return (f"Diff {one} → {other}" + (" raw" if self.state.raw else ""),)

    @property
    def count(self) -> str:
        if self._shown is None:
            return super().count
        total = self._shown.total
        return f"{total.same:,} same, {total.tensors - total.same:,} not, {super().count}"

    def draw(self, state: State) -> None:
        grid = self.query_one(Grid)
        if state.diff is None:
            self._shown = None
            grid.show(None, self._reason(state))
        elif state.diff is not self._shown:
            self._shown = state.diff
            grid.show(self.owner.stores["diff"])
        self.query_one("#side", Panel).redraw()

    def _reason(self, state: State) -> str:
        """Why there is nothing to see."""
        if (failure := state.failures.get("diff")) is not None:
            return failure.replace("\n", ". ")
        if state.stuck:
            return NOTHING_YET
        if state.pair is None:
            return "mark two schemes in Sweep (space), or open a cell of Identity"
        return "comparing …"

    def _moved(self) -> None:
        self.query_one("#detail", Panel).show(self._detail)

    async def _opened(self) -> None:
        row, pair = self.query_one(Grid).row, self.state.pair
        if self._shown is not None and row is not None and pair is not None:
            delta = self._shown.tensors[row]
            if delta.a is not None and delta.b is not None:
                await self.app.push_screen(DeltaPage(pair, delta, self.state.raw))
            else:
                scheme = pair[1] if delta.b else pair[0]
                await self.app.push_screen(TensorPage(scheme, delta.name))

    def _detail(self, width: int, rows: int) -> Sequence[Line]:
        row = self.query_one(Grid).row
        if self._shown is None or row is None:
            return ()
        return delta_lines(self._shown.tensors[row], width)

    def _chart(self, width: int, rows: int) -> Sequence[Line]:
        report = self._shown
        if report is None:
            return ()
        if report.verdict == "same":
            all_of = f"= all {report.total.tensors:,} tensors are the same"
            return [[(line, "error")] for line in wrapped(all_of, width)]
        lines = list(histogram_lines(report, width, rows // 2 if rows >= 14 else rows))
        if rows >= 14:
            points = [
                (float(n), group.rel_error)
                for n, group in enumerate(report.layers)
                if isinstance(group.rel_error, float)
            ]
            lines += [[], [("relative error, layer by layer", "title")]]
            lines += curve(points, width, rows - len(lines))
        return lines
