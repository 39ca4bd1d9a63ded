"""`ckptdiff check` on pipes and terminals: progress, readers that go away, colour, Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, SECONDS, check, environment, run


def test_progress_json(bug: Path) -> None:
    result = run("check", bug, "--json", "--progress", "json")
    assert result.out == check(bug).out
    events = [json.loads(line) for line in result.err.splitlines()]
    assert {event["event"] for event in events} == {"started", "advanced", "finished"}
    for stage in ("read", "hash"):
        mine = [event for event in events if event["stage"] == stage]
        assert mine[0]["event"] == "started"
        assert mine[-1]["event"] == "finished"
        done = sum(event.get("amount", 0) for event in mine)
        assert done == mine[0]["total"] > 0


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_progress_is_silent_without_a_terminal(sweep: Path, mode: str) -> None:
    assert run("check", sweep, "--progress", mode).err == ""
    assert run("check", sweep, "--progress", "loud").code == 2


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """`script` with the command as "$@", and stdout and stderr caught."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, *arguments],
        capture_output=True,
        timeout=SECONDS,
        env=environment(),
        check=False,
    )


def big(root: Path) -> Path:
    """Make the JSON report of `root` larger than any pipe holds."""
    for number in range(1_500):
        (root / f".{number:0100}").mkdir()
    assert len(check(root).out) > 200_000
    return root


@pytest.mark.parametrize("unbuffered", ["", "PYTHONUNBUFFERED=1 "])
def test_reader_that_has_seen_enough(sweep: Path, unbuffered: str) -> None:
    big(sweep)
    script = f'{unbuffered}"$@" | head -1; exit ${{PIPESTATUS[0]}}'
    done = shell(script, "check", sweep, "--json")
    assert done.stdout == b"{\n"
    assert done.stderr == b""
    assert done.returncode == 141  # as of any program that SIGPIPE ends; 1 would be a finding


def test_reader_of_progress_that_goes_away(sweep: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "check", sweep, "--json", "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=write,
        timeout=SECONDS,
        env=environment(),
        check=False,
    )
    os.close(write)
    assert done.returncode == 0
    assert done.stdout == check(sweep).out


def test_stdout_that_cannot_be_written(sweep: Path) -> None:
    for place in (">/dev/full", ">&-"):
        done = shell(f'"$@" {place}', "check", sweep)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
        assert done.stderr.startswith(b"ckptdiff: stdout ")
    done = shell('"$@" 2>&-', "check", sweep)
    assert done.returncode == 0
    assert done.stdout == run("check", sweep).out
    assert shell('"$@" 2>&-', "check", sweep / "nothing").returncode == 2
    assert shell('"$@" 2>/dev/full', "check", sweep / "nothing").returncode == 2


def on_terminal(*arguments: str | Path, **env: str) -> tuple[int, str]:
    """Exit code and output of the command with a terminal as stdout and stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment({"TERM": "xterm-256color", **env}),
    )
    os.close(theirs)
    output = b"".join(_read_all(ours))
    os.close(ours)
    return process.wait(SECONDS), output.decode().replace("\r\n", "\n")


def _read_all(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # EIO: the last writer has closed it
            return
        if not part:
            return
        yield part


def test_colour_on_terminals_only(bug: Path, tmp_path: Path) -> None:
    plain = run("check", bug).text
    code, coloured = on_terminal("check", bug, "-o", tmp_path / "report.txt")
    assert code == 1
    assert "\x1b[31;1mFAIL\x1b[0m" in coloured
    assert (tmp_path / "report.txt").read_text() == plain
    assert on_terminal("check", bug, NO_COLOR="1") == (1, plain)
    assert on_terminal("check", bug, TERM="dumb") == (1, plain)
    assert "\x1b" not in plain
    assert "\x1b" not in on_terminal("check", bug, "--json")[1]


# Ctrl-C, and what ends services and sessions


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_interrupt_while_hashing(
    tmp_path: Path, number: signal.Signals, code: int, told: str
) -> None:
    scheme = tmp_path / "root/one"
    scheme.mkdir(parents=True)
    size = 20_000_000_000
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    file = scheme / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(file, 8 + len(header) + size)  # a hole: it takes no room and seconds to read
    process = subprocess.Popen(
        [*COMMAND, "check", scheme.parent, "--progress", "json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    while json.loads(line := process.stderr.readline()) != {
        "event": "started", "stage": "hash", "total": size, "unit": "bytes"
    }:  # fmt: skip
        assert line
    assert json.loads(process.stderr.readline())["event"] == "advanced"
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert '"finished"' not in err
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert told in err


ENDING = """
import os, signal, time
import click
from ckptdiff.cli import console
from ckptdiff.errors import Cancelled
@click.command()
def command():
    try:
        os.kill(os.getpid(), signal.{signal})
        time.sleep(60)
    except KeyboardInterrupt:
        {then}
{before}
console.guarded(command)
"""


def ended(number: str, then: str, before: str = "") -> subprocess.CompletedProcess[str]:
    script = ENDING.format(signal=number, then=then, before=before)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS,
        env=environment(), check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_what_ends_a_run_that_has_done_a_part_is_in_its_code(number: str, code: int) -> None:
    done = ended(number, 'raise Cancelled("stopped; one was written")')
    assert done.returncode == code
    assert done.stderr.startswith("ckptdiff: stopped; one was written\n")


def test_another_interrupt_does_not_change_how_it_ends() -> None:
    again = "say = console.say\ndef twice(text):\n    os.kill(os.getpid(), signal.SIGINT)\n"
    done = ended("SIGINT", "raise", again + "    say(text)\nconsole.say = twice")
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted; nothing was changed"
