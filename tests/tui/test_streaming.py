"""Identity letters while tensors are hashed: what is known is shown, "…" for what is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import build
import pytest
from driving import NARROW, SAMPLES, drive, make, screen_text, settle, sizes, until
from textual.pilot import Pilot

from ckptdiff.analysis.hashing import digests as hashing
from ckptdiff.events import CancelToken
from ckptdiff.jobs import caching
from ckptdiff.records.checkpoint import Shard
from ckptdiff.records.digests import ShardDigests
from ckptdiff.tui import bridge
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.state import State
from ckptdiff.tui.widgets.grid import Grid

SPEC = build.SweepSpec()


class Gate:
    """Lets shards be hashed one by one, when a test says so."""

    def __init__(self) -> None:
        self.hash = hashing.hash_shards
        self.open = threading.Semaphore(0)
        self.hashed: list[str] = []

    def __call__(
        self, shards: Sequence[Shard], *, cancel: CancelToken, **how: Any
    ) -> Mapping[str, ShardDigests]:
        found: dict[str, ShardDigests] = {}
        for shard in shards:
            while not self.open.acquire(timeout=0.01):
                cancel.raise_if_cancelled()
            found |= self.hash([shard], cancel=cancel, **how)
            self.hashed.append(shard.path)
        return found


@pytest.fixture()
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(hashing, "hash_shards", gate)
    monkeypatch.setattr(bridge, "INTERVAL", 0.0)  # no event goes by while the gate is closed
    return gate


def play(
    root: Path, size: tuple[int, int], act: Callable[[Pilot[None], CkptdiffApp], Any]
) -> CkptdiffApp:
    """Open the app on `root` and act without waiting for its work."""
    app = make(root)

    async def scenario() -> None:
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.bridge.runs("hash"))
            await act(pilot, app)

    asyncio.run(scenario())
    return app


def letters(app: CkptdiffApp) -> list[str]:
    """What the column of letters says, from top to bottom."""
    store = app.screen.query_one(Grid).store
    assert store is not None
    paint = store.column("id").paint
    assert paint is not None
    return ["".join(text for text, _ in paint(row, 5)).strip() for row in range(store.total)]


@sizes
def test_letters_appear_while_others_are_hashed(size: tuple[int, int], gate: Gate) -> None:
    async def act(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await until(pilot, lambda: app.screen.query_one(Grid).store is not None)
        assert letters(app) == ["…"] * 4
        seen = [["A", "…", "…", "…"], ["A ×2", "A ×2", "…", "…"], ["A ×3", "A ×3", "A ×3", "…"]]
        for wanted in seen:
            gate.open.release()
            await until(pilot, lambda: letters(app) == wanted)  # noqa: B023
            assert not app.state.hashed
            # What would be copied and written is a report without hashes.
            assert app.state.report is not None
            assert {row.identity for row in app.state.schemes} == {None}
            await pilot.press("j")  # keys do not wait
            assert "…" in screen_text(app)
        for _ in range(9):
            gate.open.release()
        await settle(pilot)
        assert app.state.hashed
        assert letters(app) == ["A ×4"] * 4

    play(SAMPLES / "copied", size, act)


@sizes
def test_identity_says_what_is_known(size: tuple[int, int], gate: Gate) -> None:
    async def act(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await pilot.press("3")
        await until(pilot, lambda: "waiting for hashes" in screen_text(app))
        for _ in range(3):
            gate.open.release()
        await until(pilot, lambda: screen_text(app).count("≠") == 6)
        text = screen_text(app)
        assert text.count(" … ") >= 4
        assert "=100" not in text
        await pilot.press("j", "l", "enter", "n")
        for _ in range(9):
            gate.open.release()
        await settle(pilot)
        text = screen_text(app)
        assert "≠" not in text
        assert app.state.overlap is not None

    play(SAMPLES / "sweep", size, act)


def test_a_look_that_is_broken_off_is_gone_on_with(
    sweep: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was hashed by then is not read again: a sweep that is written to all the time is
    hashed all the same."""

    async def act(pilot: Pilot[None], app: CkptdiffApp) -> None:
        for _ in range(3):
            gate.open.release()
        await until(pilot, lambda: len(gate.hashed) == 3)
        done = list(gate.hashed)
        gate.hashed.clear()
        app.bridge.stop("hash")
        await until(pilot, lambda: not app.bridge.runs("hash"))
        app.work.look()
        for _ in range(20):
            gate.open.release()
        await settle(pilot)
        assert app.state.hashed
        assert gate.hashed
        assert not set(done) & set(gate.hashed)

    # Digests of files that were written within two seconds are not remembered.
    monkeypatch.setattr(caching, "is_settled", lambda shard, now: True)
    play(sweep, NARROW, act)


def test_one_that_is_written_to_all_the_time_keeps_nobody_from_being_hashed(
    sweep: Path, gate: Gate
) -> None:
    """The first change is looked at soon; of the same ones again only when hashing is over."""

    async def act(pilot: Pilot[None], app: CkptdiffApp) -> None:
        log = sweep / SPEC.scheme(50) / "train.log"
        judged: list[object] = []
        watched = app.work._watched

        def judge(state: State, now: Any) -> State:
            state = watched(state, now)
            judged.append(now)
            return state

        app.work._watched = judge  # type: ignore[method-assign]

        async def written() -> None:
            with log.open("a") as file:
                file.write("x" * 10)
            before = len(judged)
            app.work.poll()
            await until(pilot, lambda: len(judged) > before)
            await until(pilot, lambda: app.bridge.runs("hash") and not app.bridge.runs("check"))

        first = app.bridge._tokens["hash"]
        await written()
        second = app.bridge._tokens["hash"]
        assert second is not first
        for _ in range(5):
            await written()
        assert app.bridge._tokens["hash"] is second
        assert app.state.changed == {SPEC.scheme(50)}
        (sweep / SPEC.scheme(10) / "x.log").write_text("x")  # another one
        await written()
        assert app.bridge._tokens["hash"] is not second
        for _ in range(20):
            gate.open.release()
        await settle(pilot)
        assert app.state.hashed
        app.work.poll()  # and now nothing is left that was not looked at
        await settle(pilot)
        report = app.state.report
        app.work.poll()
        await settle(pilot)
        assert app.state.report is report

    play(sweep, NARROW, act)


def test_the_end_is_the_report(sweep: Path) -> None:
    def scenario_of(seen: list[Any]) -> Callable[[Pilot[None]], Any]:
        async def scenario(pilot: Pilot[None]) -> None:
            app = pilot.app
            assert isinstance(app, CkptdiffApp)
            assert app.state.report is not None
            assert app.state.identity == app.state.report.identity
            seen.append(letters(app))

        return scenario

    seen: list[Any] = []
    drive(sweep, scenario_of(seen))
    assert seen == [["A", "B", "C", "D"]]
