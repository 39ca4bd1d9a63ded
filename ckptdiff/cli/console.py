"""stderr and exit codes: the only module that narrates, and the only one that exits."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import TextIO

import click

from ckptdiff.errors import CkptdiffError
from ckptdiff.report.escape import printable


def guarded(command: click.Command) -> None:
    """Run `command`; every ending becomes one message and one exit code, never a traceback
    for anything that a user or a checkpoint can cause."""
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
        say("interrupted; nothing was changed")
        code = 130
    except CkptdiffError as error:
        say_error(error)
        code = error.exit_code
    except Exception:
        # Left alone, Python would exit with 1, which means "findings" to every script.
        traceback.print_exc()
        say("ckptdiff: this is a defect of ckptdiff, please report it with the lines above")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


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
