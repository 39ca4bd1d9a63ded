"""What `sweep` and `reexport` do alike: show the plan, ask, carry it out, tell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from ckptdiff import api
from ckptdiff.cli.console import narrate, say
from ckptdiff.cli.options import (
    PATH,
    Option,
    gathered,
    jobs_option,
    json_option,
    no_cache_option,
    progress_option,
)
from ckptdiff.cli.output import finish, show
from ckptdiff.events import Sink
from ckptdiff.records.plan import PlanReport


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command that writes checkpoints was told of plan and execution."""

    dry_run: bool
    yes: bool
    as_json: bool
    no_cache: bool
    jobs: int | None
    progress: str


def donor_option(otherwise: str) -> Option:
    """--donor, given to the command as `donors`; `otherwise` is the end of its help."""
    return click.option(
        "--donor",
        "donors",
        multiple=True,
        type=PATH,
        metavar="DIR",
        help=f"Take quantized modules from here{otherwise}",
    )


# Given to the command as one `wanted` of type `Wanted`.
composing_options = gathered(
    "wanted",
    Wanted,
    (
        click.option("--dry-run", is_flag=True, help="Show the plan and write nothing."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        json_option("ckptdiff.plan/1"),
        no_cache_option,
        jobs_option,
        progress_option,
    ),
)


def carry_out(
    planned: api.Planned | api.PlannedBaseline,
    wanted: Wanted,
    sink: Sink,
    execute: Callable[..., PlanReport] | None = None,
) -> None:
    """Show a plan and, once somebody agrees, carry it out. Exit code 0 when everything that
    was asked for is done, 2 when it is not, that of the worst error otherwise. `execute` is the
    verb that carries it out, `api.execute` unless it is given."""
    report, as_json = planned.report, wanted.as_json
    if wanted.dry_run or not report.possible or not (wanted.yes or _asks(as_json)):
        show(report, as_json)
        if report.possible and not wanted.dry_run:
            say("ckptdiff: nothing was written, because nobody could be asked")
            say("Add --yes to carry this out, or --dry-run to see the plan alone.")
        raise click.exceptions.Exit(0 if wanted.dry_run and report.possible else 2)
    if not wanted.yes:
        show(report, as_json)
        if not _confirmed():
            say("nothing was written")
            raise click.exceptions.Exit(2)
    run: Callable[..., PlanReport] = execute or api.execute
    done = run(planned, jobs=wanted.jobs, cache=not wanted.no_cache, sink=sink)
    finish(done, as_json)


def _asks(as_json: bool) -> bool:
    """Whether there is somebody who can read the plan and answer."""
    streams = (sys.stdin, sys.stderr)
    return not as_json and all(stream is not None and stream.isatty() for stream in streams)


def _confirmed() -> bool:
    narrate("Write this? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
