"""stderr and exit codes: the only module that narrates, and the only one that exits."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from types import FrameType
from typing import TextIO

import click

from ckptdiff.errors import Cancelled, CkptdiffError
from ckptdiff.report.escape import printable


def guarded(command: click.Command) -> None:
    """Run `command`; every ending becomes one message and one exit code, never a traceback
    for anything that a user or a checkpoint can cause."""
    ended = _signals()
    try:
        code = command.main(standalone_mode=False)
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.ClickException as error:
        message = io.StringIO()
        error.show(file=message)
        say("\n".join(map(printable, message.getvalue().expandtabs().rstrip().split("\n"))))
        code = 2
    except (click.Abort, KeyboardInterrupt):
        _decided()
        say(f"{f'ended by {ended[0].name}' if ended else 'interrupted'}; nothing was changed")
        code = 128 + (ended[0] if ended else signal.SIGINT)
    except CkptdiffError as error:
        _decided()
        say_error(error)
        code = error.exit_code
        if ended and isinstance(error, Cancelled):  # with a part of its work done
            code = 128 + ended[0]
    except Exception:
        # Left alone, Python would exit with 1, which means "findings" to every script.
        traceback.print_exc()
        say("ckptdiff: this is a defect of ckptdiff, please report it with the lines above")
        code = 2
    _decided()
    sys.exit(code if isinstance(code, int) else 0)


def _decided() -> None:
    """How this ends is known, and nothing is left to be stopped: another Ctrl-C would only
    put a traceback in the place of the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _signals() -> list[signal.Signals]:
    """Have SIGTERM and SIGHUP end the work as Ctrl-C does, with temporary files removed; which
    one came will be in the list. What is ignored, as under nohup, stays so."""
    came: list[signal.Signals] = []

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one is final
        came.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    return came


def say_error(error: CkptdiffError) -> None:
    """What went wrong, and what to do next."""
    say(f"ckptdiff: {printable(error.message)}")
    if error.next_step:
        say("\n".join(map(printable, error.next_step.split("\n"))))


def say(message: str) -> None:
    """One message to whoever is watching, on stderr."""
    narrate(f"{message}\n")


def narrate(text: str) -> None:
    """Write to stderr. When nobody reads it any more, that is no reason to stop the work."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        detach(sys.stderr)


def detach(stream: TextIO) -> None:
    """Let a stream that cannot be written lead nowhere: Python flushes it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
