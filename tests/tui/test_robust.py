"""What happens to an app that is open for long: small windows, large sweeps, odd clocks."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import build
import pytest
from command import obey_permissions
from driving import COPIED, NARROW, WIDE, app_of, drive, lines, press, screen_text, settle
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import Terminal
from textual.geometry import Size
from textual.pilot import Pilot

from ckptdiff.events import Advanced, Finished, Started
from ckptdiff.records.detail import Overlap
from ckptdiff.tui import running
from ckptdiff.tui.bridge import INTERVAL, Paced
from ckptdiff.tui.store import Column, Computed, Store
from ckptdiff.tui.tables import overlap_store
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import Panel

# Windows


@pytest.mark.parametrize("keys", [*"123456", "1 enter", "2 enter", "2 enter enter", "1 slash"])
def test_a_window_that_shrinks_to_nothing_and_grows_again(keys: str) -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        await press(pilot, *keys.split())
        before = screen_text(app)
        for size in ((20, 5), (1, 1), (20, 5), (200, 4), (4, 60), WIDE, NARROW):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            shown = lines(app)
            assert {len(line) for line in shown} == {size[0]}
            await press(pilot, "down", "right", "left", "up")
        assert screen_text(app).splitlines()[0] == before.splitlines()[0]
        assert app.is_running

    drive(COPIED, scenario)


# Size


def wide_store(columns: int, rows: int, seed: int) -> Store:
    rng = random.Random(seed)
    names = [f"layers.{n}" for n in range(rows)]
    made = [Column("module", "module", names, as_given=True, least=20)]
    for n in range(columns):
        faults = frozenset(row for row in range(rows) if rng.random() < 0.01)
        width = rng.choice([5, 7, 12])
        made.append(
            Column(f"c{n}", f"c{n}", Computed(rows, lambda row: "FP8"), width, "right",
                   faults=faults, wide_only=rng.random() < 0.2)
        )  # fmt: skip
    return Store(tuple(made), names)


class Still(Grid):
    """A grid that nobody draws, of a size that a test chooses."""

    at = Size(80, 24)

    @property
    def size(self) -> Size:
        return self.at

    def refresh(self, *regions: object, **how: object) -> Still:
        return self


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(20, 130), st.integers(0, 9), st.data())
def test_the_cell_under_the_cursor_is_in_sight(
    columns: int, width: int, seed: int, data: st.DataObject
) -> None:
    grid = Still(cells=True)
    grid.at = Size(width, 10)
    grid.show(wide_store(columns, 5, seed))
    for _ in range(12):
        across = data.draw(st.integers(1, columns))
        grid.move_to(0, across)
        assert grid.store is not None
        numbers = [place.number for place in grid._placed()]
        assert numbers[0] == 0
        fits = width - 3 - grid._least(grid.store.columns[0]) - 1
        if not grid._hidden(grid.store.columns[across]) and (
            fits >= grid._least(grid.store.columns[across]) + 1
        ):
            assert across in numbers
        used = sum(place.width + 1 for place in grid._placed())
        assert used <= max(grid._room, grid._least(grid.store.columns[0]) + 1)


def test_faults_of_five_thousand_columns_are_found_in_order() -> None:
    store = wide_store(5000, 300, 1)
    grid = Still(cells=True)
    grid.show(store)
    wanted = [
        (row, number)
        for row in range(300)
        for number, column in enumerate(store.columns)
        if column.faults and row in column.faults
    ]
    assert len(wanted) > 10_000
    grid.move_to(0, 1)
    start = (grid.cursor, grid.across)
    for place in [cell for cell in wanted if cell != start][:200]:
        assert grid.next_fault(1)
        assert (grid.cursor, grid.across) == place
    for place in [cell for cell in wanted if cell != start][:199][::-1]:
        assert grid.next_fault(-1)
        assert (grid.cursor, grid.across) == place
    grid.move_to(299, 5000)
    assert grid.next_fault(1)  # around the end
    assert (grid.cursor, grid.across) == wanted[0]
    assert grid.next_fault(-1)
    assert (grid.cursor, grid.across) == wanted[-1]


def test_one_fault_is_found_from_everywhere() -> None:
    names = ["a", "b", "c"]
    columns = (Column("module", "module", names),
               *(Column(f"c{n}", f"c{n}", names, 5, faults=frozenset({1} if n == 2 else ()))
                 for n in range(4)))  # fmt: skip
    for cells, place in ((True, (1, 3)), (False, (1, 0))):
        grid = Still(cells=cells)
        grid.show(Store(columns, names))
        for row in range(3):
            for across in range(1, 5) if cells else (0,):
                for step in (1, -1):
                    grid.move_to(row, across)
                    assert grid.next_fault(step)
                    assert (grid.cursor, grid.across if cells else 0) == place


def test_a_square_of_a_thousand_schemes_is_worked_out_where_it_is_seen() -> None:
    class Row(tuple):  # type: ignore[type-arg]
        looked = 0

        def __getitem__(self, at: object) -> object:
            Row.looked += 1
            return super().__getitem__(at)  # type: ignore[index]

    count = 1000
    ids = tuple(f"top{n}" for n in range(count))
    line = Row([1] * count)
    overlap = Overlap(ids, (2,) * count, (1,) * count, (line,) * count, (line,) * count)
    store = overlap_store(overlap, {}, set(ids[:3]), None)
    assert len(store.columns) == count + 1
    assert Row.looked <= 3 * 3
    paint = store.columns[7].paint
    assert paint is not None
    assert paint(3, 7)[0][0].strip() == "50"


def test_computed_values_are_a_sequence() -> None:
    values = Computed(4, lambda row: row * row)
    assert list(values) == [0, 1, 4, 9]
    assert values[-1] == 9
    assert values[1:3] == [1, 4]
    with pytest.raises(IndexError):
        values[4]


def test_many_partial_results_are_a_few_messages() -> None:
    now = [0.0]
    told: list[object] = []
    events: list[object] = []
    paced = Paced(told.append, events.append, lambda: now[0])
    for n in range(1000):
        now[0] = n / 1000  # a second
        paced(n)
    assert told[0] == 0  # at once
    assert 2 <= len(told) <= 1 + 1 / INTERVAL
    assert told == sorted(told, key=lambda item: int(str(item)))
    now[0] += INTERVAL
    paced.sink(Advanced("hash", 1))  # the newest goes with the next event
    assert told[-1] == 999
    paced.sink(Advanced("hash", 1))
    assert told.count(999) == 1
    assert len(events) == 2


def test_stages_side_by_side_do_not_add_up() -> None:
    from ckptdiff.tui.bridge import Batch, Progressed

    posted: list[Progressed] = []
    batch = Batch("probe 1", posted.append, lambda: 0.0)  # type: ignore[arg-type]
    batch(Started("probe a", 10, "prompts"))
    batch(Started("probe b", 20, "prompts"))
    batch(Advanced("probe a", 4))
    batch(Advanced("probe b", 5))
    batch(Advanced("probe a", 6))
    batch(Finished("probe a"))
    assert (posted[-1].progress.stage, posted[-1].progress.done) == ("probe a", 10)
    batch(Finished("probe b"))
    assert (posted[-1].progress.done, posted[-1].progress.total) == (5, 20)


# Clocks


def test_a_clock_that_jumps_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    before = running.clock()
    assert abs(before - time.time()) < 60
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= running.clock() - before < 60


def test_a_clock_that_jumps_while_it_is_open(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back by years and forward again: what changes is seen all the same."""

    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        for jump in (-1e9, 1e9):
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + jump)  # noqa: B023
            monkeypatch.setattr(time, "time_ns", lambda: int((now() + jump) * 1e9))  # noqa: B023
            build.copy_weights(sweep, 100, (10 if jump < 0 else 30,))
            app.work.poll()
            await settle(pilot)
            assert app.state.hashed
            monkeypatch.undo()
        assert "3 schemes carry one set of weights" in screen_text(app)
        await press(pilot, "2", "3", "4", "1")

    drive(sweep, scenario)


# Permissions


def test_a_directory_that_may_not_be_read(sweep: Path) -> None:
    """It is named as not read, and every mode works on with the others."""
    hidden = sweep / build.SweepSpec().scheme(30)
    hidden.chmod(0)
    try:
        with Terminal("tui", sweep, "--no-watch", prefix=_obedient()) as terminal:
            terminal.see("3 schemes", "? NOT COMPLETE", "1 unread")
            seen = ("? NOT COMPLETE", "of 28", "id scheme", "SQNR", "perplexity", "nothing runs")
            for key in "234561":
                terminal.press(key)
                terminal.see(seen[int(key) - 1])
            terminal.quit()
    finally:
        hidden.chmod(0o755)


def test_a_root_that_may_not_be_read(sweep: Path) -> None:
    with Terminal("tui", sweep, prefix=_obedient()) as terminal:
        terminal.see("✓ PASS")
        sweep.chmod(0)
        try:
            terminal.see("NOT COMPLETE", "permission denied")
            for key in ("2", "j", "Enter", "3", "1", "R"):
                terminal.press(key)
            terminal.press("?")
            shown = terminal.see("Here", "Keys")
            assert "defect" not in shown
            terminal.press("Escape")
        finally:
            sweep.chmod(0o755)
        terminal.see("✓ PASS", gone=("NOT COMPLETE",))
        terminal.quit()


def _obedient() -> tuple[str, ...]:
    """A command that runs another one without root's right to open every file."""
    module = Path(obey_permissions.__code__.co_filename)
    program = (
        f"import sys, os; sys.path.insert(0, {str(module.parent)!r}); "
        "from command import obey_permissions; obey_permissions(); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return (sys.executable, "-c", program)


def test_a_thing_is_where_a_click_looks_for_it() -> None:
    """The parts of the first and the last line are as wide as they are drawn."""

    async def scenario(pilot: Pilot[None]) -> None:
        app = app_of(pilot)
        for name in ("#title", "#keys"):
            panel = app.screen.query_one(name, Panel)
            assert panel.size.width == app.size.width
            assert panel.region.x == 0

    drive(COPIED, scenario)
