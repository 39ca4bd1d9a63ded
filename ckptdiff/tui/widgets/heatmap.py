"""A heat map: a square grid of shares, each a number over a shade."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ckptdiff.records.detail import Overlap
from ckptdiff.tui.tables import overlap_store
from ckptdiff.tui.widgets.grid import Grid


class HeatMap(Grid):
    """Shades of a grid; `=100` and the tone of a conflict stand where two should differ."""

    HELP = (
        "Each row is a scheme, each column another: the share of the row's bytes that the column "
        "has too. =100 means that all of them are the same. Enter compares the two tensor by "
        "tensor."
    )

    def show_overlap(
        self,
        overlap: Overlap,
        letters: Mapping[str, str | None],
        clashing: Collection[str],
        base: str | None,
    ) -> None:
        """Show how much schemes share; `clashing` are those that should not share all."""
        self.show(overlap_store(overlap, letters, clashing, base))
