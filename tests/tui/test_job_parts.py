"""The parts of Jobs without an app: logs that are followed, records, rows and lines."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from driving import SECONDS
from rich.cells import cell_len

from ckptdiff.records.plan import (
    PLAN_SCHEMA,
    MissingModule,
    Outcome,
    Plan,
    PlanReport,
    SelectedModule,
)
from ckptdiff.records.report import Tool
from ckptdiff.tui import running
from ckptdiff.tui.following import Tail, followed
from ckptdiff.tui.job_view import job_lines, jobs_store, log_lines, status_of
from ckptdiff.tui.plan_view import head_lines, outcome_lines, plan_lines
from ckptdiff.tui.reexports import Request
from ckptdiff.tui.state import JobRecord, Progress, State, Stopped
from ckptdiff.tui.text import Line

EVIL = "\x1b[2J[bold]日本\u202e"
RECORD = JobRecord("re-export 1", "re-export of top10", ("reexport", "q/top10", "--yes"), 100.0)


def text(lines: list[Line]) -> str:
    return "\n".join("".join(part for part, _ in line) for line in lines)


def plan(name: str, **changes: object) -> Plan:
    made = Plan(
        scheme=name, target=f"q/{name}", original="q/old", in_place=True, engine="compose",
        why="because", algorithm="FP8", base="base", dropped=("b", "c"),
        selected=(SelectedModule("a", "top100", "proven"),), bytes=2_000_000, free=5_000_000_000,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def report(*plans: Plan, outcomes: tuple[Outcome, ...] = ()) -> PlanReport:
    return PlanReport(PLAN_SCHEMA, Tool("ckptdiff", "0"), plans, outcomes)


# Logs


def test_a_tail_tells_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == ()  # not there yet
    path.write_bytes(b"one\ntw")
    assert tail.read() == ("one",)
    with path.open("ab") as file:
        file.write(b"o\n 10%\r 50%\r100%\r\n\n\xff\nrest")
    assert tail.read() == ("two", "100%", "\ufffd")
    assert tail.read() == ()
    assert tail.read(last=True) == ("rest",)
    assert tail.read(last=True) == ()


def test_a_log_that_is_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a long first line of the first child\n")
    tail = Tail(path)
    assert len(tail.read()) == 1
    path.write_text("second\n")
    assert tail.read() == ("second",)


def test_of_a_flood_the_newest_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(100_000)))
    lines = Tail(path).read()
    assert lines[-1] == "line 99999"
    assert 1000 < len(lines) < 10_000


def test_a_followed_log_is_told_to_its_last_word(tmp_path: Path) -> None:
    path = tmp_path / "log"
    told: list[str] = []
    first = threading.Event()

    def say(lines: tuple[str, ...]) -> None:
        told.extend(lines)
        first.set()

    with followed(path, say):
        with path.open("w") as file:
            file.write("while it runs\n")
        assert first.wait(SECONDS)
        with path.open("a") as file:
            file.write("the last word")
    assert told == ["while it runs", "the last word"]


def test_a_log_is_followed_to_its_end_when_the_block_fails(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(KeyError), followed(tmp_path / "log", lambda lines: told.extend(lines)):
        (tmp_path / "log").write_text("why\n")
        raise KeyError
    assert told == ["why"]


# Records


def test_a_record_from_start_to_end() -> None:
    state = State().with_record(RECORD)
    assert state.job == RECORD.name and state.running == (RECORD,)
    assert running.fresh_name(state, "re-export") == "re-export 2"
    assert running.fresh_name(state, "probe") == "probe 1"
    state = running.said(state, RECORD.name, tuple(map(str, range(2000))))
    assert state.jobs[0].log[-1] == "1999" and len(state.jobs[0].log) == running.LOG_LINES
    state = running.advanced(state, RECORD.name, Progress(RECORD.name, "write", 1, 4, "bytes"))
    assert running.loses(state.jobs[0])
    state = running.stopping(state, RECORD.name)
    assert status_of(state.jobs[0]) == "stopping"
    assert not running.loses(state.jobs[0])  # nobody is asked twice
    over = running.ended(state, RECORD.name, report(plan("top10")), 130.0)
    assert over.running == () and status_of(over.jobs[0]) == "done"
    assert running.ended(over, RECORD.name, Stopped("late"), 140.0) == over
    assert status_of(running.failed(state, RECORD.name, "", 1).jobs[0]) == "cancelled"
    assert status_of(running.failed(state, RECORD.name, "no room", 1).jobs[0]) == "failed"
    stopped = running.ended(state, RECORD.name, Stopped("one of two was written"), 1)
    assert status_of(stopped.jobs[0]) == "cancelled"
    assert stopped.jobs[0].failure == "one of two was written"


def test_a_job_that_is_no_record_changes_nothing() -> None:
    state = State().with_record(RECORD)
    for changed in (
        running.said(state, "hash", ("x",)),
        running.advanced(state, "hash", Progress("hash", "hash")),
        running.failed(state, "hash", "no", 1),
        running.stopping(state, "hash"),
    ):
        assert changed == state


def test_the_newest_job_is_the_first_row() -> None:
    failed = RECORD._replace(name="b", ended=103.0, failure="no")
    store = jobs_store((RECORD, failed), 3700.0 + 100)
    assert list(store.keys) == ["b", RECORD.name]
    assert [store.column("seconds").text(v) for v in store.column("seconds").values] == [
        "3 s",
        "1 h 01 m",
    ]
    assert store.column("status").faults == {0}
    assert store.facets["status"] == ["failed", "running"]


# Lines


def test_what_a_plan_says() -> None:
    able = report(plan("fp8_top10"), plan("fp8_top20"))
    assert text(head_lines(able, 80)) == "✓ possible: 2 schemes, 4.00 MB to write, 5.00 GB free"
    said = " ".join(text(plan_lines(able, 100)).split())
    assert "✓ top10 compose 1 selected, 2 dropped, 2.00 MB" in said
    for words in ("engine compose: because", "selected 1 module to FP8; 2 dropped",
                  "donor 1 from top100, proven against base", "base base",
                  "repairs q/old (becomes .broken-N)", "target q/fp8_top10",
                  "writes 2.00 MB of 5.00 GB free"):  # fmt: skip
        assert words in said


def test_what_keeps_a_plan_from_being_carried_out() -> None:
    names = [f"layer.{n}" for n in range(9)]
    lacking = plan("top10", missing=tuple(MissingModule(name, "no donor") for name in names))
    refused = plan("top20", refused=("there is no base",))
    both = report(lacking, refused, plan("top30"))
    assert text(head_lines(both, 80)) == "✗ cannot: 2 of 3 schemes cannot be written"
    narrow = head_lines(both, 30)
    assert max(cell_len(text([line])) for line in narrow) <= 30
    assert " ".join(text(narrow).split()) == text(head_lines(both, 80))
    said = " ".join(text(plan_lines(both, 100)).split())
    assert "missing 9 modules: layer.0, layer.1" in said and "and 3 more; no donor" in said
    assert "refused there is no base" in said
    assert "1 selected, 2 dropped, 9 missing" in said


@pytest.mark.parametrize("width", [30, 76, 158])
def test_names_of_strangers_are_escaped_and_fit(width: int) -> None:
    hostile = plan(EVIL, target=f"q/{EVIL}", why=EVIL, original=EVIL, base=EVIL,
                   missing=(MissingModule(EVIL, EVIL),), notes=(EVIL,))  # fmt: skip
    outcome = Outcome(EVIL, EVIL, "failed", reason=EVIL, next_step=f"{EVIL}\n{EVIL}")
    record = RECORD._replace(title=EVIL, log=(EVIL,), plan=((EVIL, EVIL),), failure=EVIL,
                     ended=1.0, result=report(hostile, outcomes=(outcome,)))  # fmt: skip
    lines = [
        *plan_lines(report(hostile, hostile), width),
        *outcome_lines(report(hostile, outcomes=(outcome,)), width),
        *log_lines(record, width),
        *job_lines(record, width),
    ]
    for line in lines:
        shown = "".join(part for part, _ in line)
        assert shown.isprintable(), repr(shown)
    assert max(cell_len(text([line])) for line in plan_lines(report(hostile), width)) <= width


def test_words_of_a_request() -> None:
    request = Request(("q/a", "q/b"), "base", "autoquant", ("d1", "d2"), True)
    request = request._replace(preset="FP8_DEFAULT_CFG", calib="rows.txt", score="kl_div")
    assert request.words == (
        "reexport", "q/a", "q/b", "--engine", "autoquant", "--base", "base", "--donor", "d1",
        "--donor", "d2", "--preset", "FP8_DEFAULT_CFG", "--calib", "rows.txt", "--score", "kl_div",
        "--in-place", "--yes",
    )  # fmt: skip
    assert not {"--preset", "--calib", "--score"} & {*request._replace(engine="compose").words}
    assert Request(("q/a",)).words == ("reexport", "q/a", "--yes")
