"""stderr and exit codes: the only module that narrates, and the only one that exits."""

from __future__ import annotations

import os
import sys
import traceback

import click

from ckptdiff.errors import CkptdiffError
from ckptdiff.report.escape import printable


def guarded(command: click.Command) -> None:
    """Run `command`; every ending becomes one message and one exit code, never a traceback
    for anything that a user or a checkpoint can cause."""
    try:
        code = command.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        say("interrupted; nothing was changed")
        code = 130
    except CkptdiffError as error:
        say(f"ckptdiff: {printable(error.message)}")
        if error.next_step:
            say("\n".join(map(printable, error.next_step.split("\n"))))
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception:
        # Left alone, Python would exit with 1, which means "findings" to every script.
        traceback.print_exc()
        say("ckptdiff: this is a defect of ckptdiff, please report it with the lines above")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def say(message: str) -> None:
    """One message to whoever is watching, on stderr."""
    click.echo(message, err=True)
