"""The grid by itself: what it draws is what it was given last."""

from __future__ import annotations

import asyncio
import gc
from typing import ClassVar

from textual.app import App, ComposeResult

from ckptdiff.tui.store import Column, Store
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.toned import TONE_CLASSES


class Alone(App[None]):
    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)

    def compose(self) -> ComposeResult:
        yield Grid()


def store_of(*values: str) -> Store:
    return Store((Column("name", "name", list(values)),), list(values))


def test_a_store_is_not_taken_for_one_that_had_its_place_in_memory() -> None:
    """Replaced twice between two frames, as when a second job begins: the third one often lies
    where the first one lay."""

    async def play() -> None:
        app = Alone()
        async with app.run_test(size=(40, 10)):
            grid = app.query_one(Grid)
            for number in range(50):
                names = [f"{number}-{row}" for row in range(1 + number % 3)]
                grid.show(store_of(*names))
                drawn = [grid.render_line(1 + row).text for row in range(len(names))]
                assert all(name in line for name, line in zip(names, drawn, strict=True))
                grid.show(store_of("between"))
                gc.collect(0)  # of all generations would take half a second of a large process

    asyncio.run(play())
