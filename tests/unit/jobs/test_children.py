"""Child processes: what they say, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptdiff.errors import Cancelled, CapabilityError, ChildError, UsageError
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started, silent
from ckptdiff.jobs import children
from ckptdiff.jobs.children import Child, Program, require

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find the programs of the tests; a relative entry is made absolute for them."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("PYTHONPATH", ".")


def program(name: str) -> Program:
    return Program(
        "tests.unit.jobs.programs", "the test", environment={"CKPTDIFF_TEST_PROGRAM": name}
    )


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process ends; one that nobody waits for yet counts as ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
    return False


def test_messages_come_back_and_events_go_to_the_sink() -> None:
    events: list[Event] = []
    with Child(program("echo")) as child:
        child.send({"text": "\u2028 and \ud800", "last": False})
        child.send({"n": 2, "last": True})
        found = [*child.messages(events.append, CancelToken())]
        directory = Path(found[0]["directory"])
    assert [m["message"] for m in found] == [
        {"text": "\u2028 and \ud800", "last": False},
        {"n": 2, "last": True},
    ]
    assert events == [
        Started("echo", 2, "files"),
        Advanced("echo", 1),
        Advanced("echo", 1),
        Finished("echo"),
    ]
    # A directory of its own, also for code that comes with a model, and nothing is left of it.
    assert Path(found[0]["modules"]).parent == directory
    assert directory != REPOSITORY and not directory.exists()


def test_a_stage_that_says_nothing_is_said_to_go_on() -> None:
    """The innermost one, by nothing; what counts is that it is heard of."""
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        if isinstance(event, Advanced):
            child.send({})

    with Child(program("brood")) as child:
        assert not list(child.messages(hear, CancelToken()))
    assert list(dict.fromkeys(events)) == [
        Started("search", None, "modules"),
        Started("score", 2, "batches"),
        Advanced("score", 0),
        Finished("score"),
        Advanced("search", 0),
        Finished("search"),
    ]
    # A second is the longest that somebody may have to look at nothing.
    assert children._PULSE_SECONDS + children._POLL_SECONDS < 1


def test_a_child_that_is_done_is_not_waited_for() -> None:
    with Child(program("dally")) as child:
        assert not list(child.messages(silent, CancelToken()))
    assert gone(child.pid)


def test_a_planted_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    with Child(program("echo")) as child:
        child.send({"last": True})
        assert [*child.messages(silent, CancelToken())]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "kind", "code", "message"),
    [
        ("refuse", CapabilityError, 3, "there is no GPU\nBuy one."),
        ("stumble", ChildError, 4, "the test failed: ValueError: a value"),
        ("vanish", ChildError, 4, "the test was ended by SIGKILL: perhaps there was too little"),
        ("leave", ChildError, 4, "the test ended with exit code 0 and no result"),
    ],
)
def test_every_ending_is_an_error_with_its_exit_code(
    name: str, kind: type[Exception], code: int, message: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(kind) as caught, Child(program(name), log=log) as child:
        list(child.messages(silent, CancelToken()))
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == code  # type: ignore[attr-defined]
    if name == "stumble":
        assert "words of the child" in log.read_text()
        assert f"\nRead its output in {log}, which ends:\n" in str(caught.value)
        assert str(caught.value).endswith("\nValueError: a value")
    if name == "vanish":
        # Of a bar that was written over and over, its last state.
        assert str(caught.value).endswith("\n100 %\nlast words")


def test_a_log_that_nobody_asked_for_is_kept_on_failure_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Child(program("echo")) as child:
        child.send({"last": True})
        list(child.messages(silent, CancelToken()))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ChildError), Child(program("vanish")) as child:
        list(child.messages(silent, CancelToken()))
    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]


def test_cancelling_ends_a_child_that_does_not_listen_and_what_it_started() -> None:
    cancel = CancelToken()

    def told(child: Child) -> Iterator[dict[str, int]]:
        for message in child.messages(silent, cancel):
            yield dict(message)
            cancel.cancel()

    pids: dict[str, int] = {}
    with pytest.raises(Cancelled), Child(program("linger")) as child:
        for message in told(child):
            pids = message
    # Within a second: asked for it is noticed, and then it is not asked again.
    assert children._POLL_SECONDS + children._GRACE_SECONDS < 1
    assert gone(pids["own"]) and gone(pids["child"])


def test_a_request_that_no_pipe_holds_does_not_keep_the_parent() -> None:
    with Child(program("linger")) as child:
        child.send({"text": "x" * 10_000_000})  # more than a pipe holds
        for _ in child.messages(silent, CancelToken()):
            break


def test_a_large_request_arrives_whole() -> None:
    with Child(program("echo")) as child:
        child.send({"text": "y" * 3_000_000, "last": True})
        (found,) = child.messages(silent, CancelToken())
    assert found["message"]["text"] == "y" * 3_000_000


def test_a_log_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        Child(program("echo"), log=tmp_path / "absent" / "log")


def test_an_error_in_the_parent_ends_the_child() -> None:
    pids: dict[str, int] = {}
    with pytest.raises(RuntimeError), Child(program("linger")) as child:
        for message in child.messages(silent, CancelToken()):
            pids = dict(message)
            raise RuntimeError
    assert gone(pids["own"]) and gone(pids["child"])


def test_a_parent_that_is_killed_leaves_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    parent = """
import sys
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs.children import Child
from tests.unit.jobs.test_children import program
with Child(program("linger")) as child:
    for message in child.messages(silent, CancelToken()):
        print(message["own"], message["child"], flush=True)
"""
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    own, child = map(int, running.stdout.readline().split())
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert gone(own) and gone(child)


def test_a_missing_package_is_named_with_its_extra() -> None:
    absent = Program("x", "the probe", extra="probe", packages=("os", "no_such_package"))
    with pytest.raises(CapabilityError, match="the probe needs no_such_package") as caught:
        require(absent)
    assert caught.value.next_step == "pip install 'ckptdiff[probe]'"
    assert caught.value.exit_code == 3


def test_an_interrupt_while_a_child_is_ended_waits_for_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second Ctrl-C, for one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stop = Child._stop

    def interrupted(child: Child) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        stop(child)

    monkeypatch.setattr(Child, "_stop", interrupted)
    with pytest.raises(KeyboardInterrupt), Child(program("echo")) as child:
        pid = child.pid
    assert gone(pid) and list(tmp_path.iterdir()) == []
