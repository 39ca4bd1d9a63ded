"""What `sweep` and `reexport` do alike: show the plan, ask, carry it out, tell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ckptdiff import api
from ckptdiff.cli.console import narrate, say
from ckptdiff.cli.options import progress_option
from ckptdiff.cli.output import use_color, write_stdout
from ckptdiff.events import Sink

_OPTIONS = (
    click.option("--dry-run", is_flag=True, help="Show the plan and write nothing."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    click.option("--json", "as_json", is_flag=True, help="Write ckptdiff.plan/1 instead of text."),
    click.option("--no-cache", is_flag=True, help="Neither use nor write remembered digests."),
    click.option(
        "--jobs", type=click.IntRange(1), metavar="N", help="Threads.  [default: all cores]"
    ),
    progress_option,
)


def composing_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every command which writes checkpoints has."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def carry_out(
    planned: api.Planned | api.PlannedBaseline,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    cache: bool,
    jobs: int | None,
    sink: Sink,
    execute: Callable[..., Any] | None = None,
) -> None:
    """Show a plan and, once somebody agrees, carry it out. Exit code 0 when everything that
    was asked for is done, 2 when it is not, that of the worst error otherwise. `execute` is the
    verb that carries it out, `api.execute` unless it is given."""
    report = planned.report
    agreed = dry_run or yes
    if dry_run or not report.possible or not (yes or _asks(as_json)):
        _write(report, as_json)
        if report.possible and not agreed:
            say("ckptdiff: nothing was written, because nobody could be asked")
            say("Add --yes to carry this out, or --dry-run to see the plan alone.")
        raise click.exceptions.Exit(0 if dry_run and report.possible else 2)
    if not yes:
        _write(report, as_json)
        if not _confirmed():
            say("nothing was written")
            raise click.exceptions.Exit(2)
    run: Callable[..., Any] = execute or api.execute
    done = run(planned, jobs=jobs, cache=cache, sink=sink)
    _write(done, as_json)
    raise click.exceptions.Exit(api.exit_code(done))


def _asks(as_json: bool) -> bool:
    """Whether there is somebody who can read the plan and answer."""
    streams = (sys.stdin, sys.stderr)
    return not as_json and all(stream is not None and stream.isatty() for stream in streams)


def _confirmed() -> bool:
    narrate("Write this? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write(report: Any, as_json: bool) -> None:
    write_stdout(api.render(report, "json" if as_json else "text", color=use_color()))
