"""Options that more than one command has, so that they are called and explained alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

Function = Callable[..., None]
Option = Callable[[Function], Function]


class _Path(click.Path):
    """A path; the empty one, which a shell makes of a variable that is not set, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; a variable that is not set? Write . for this directory.")
        return super().convert(value, param, ctx)


# Whether a path can be read is for the report to say, not for the parser of options.
PATH = _Path(path_type=Path, readable=False)
PATH_TEXT = _Path(path_type=str, readable=False)

base_option = click.option(
    "--base",
    type=PATH,
    metavar="DIR",
    help="The full-precision checkpoint. Default: searched for.",
)
config_option = click.option(
    "--config", type=PATH, metavar="FILE", help="A ckptdiff.toml. Default: from here upwards."
)
no_cache_option = click.option(
    "--no-cache", is_flag=True, help="Neither use nor write remembered digests."
)
rehash_option = click.option(
    "--rehash", is_flag=True, help="Read every byte again, remembered or not."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), metavar="N", help="Threads.  [default: as many as help]"
)
trust_remote_code_option = click.option(
    "--trust-remote-code", is_flag=True, help="Run the code that comes with the model."
)


def output_option(suffixes: str) -> Option:
    """-o, given to the command as the paths `output`; `suffixes` are those it may have."""
    return click.option(
        "-o",
        "--output",
        multiple=True,
        type=PATH,
        metavar="FILE",
        help=f"Write a {suffixes} too. Repeatable.",
    )


progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "off"]),
    default="auto",
    show_default=True,
    help="On stderr: a line on terminals, JSON lines, or nothing.",
)


def json_option(schema: str) -> Option:
    """--json of a command that knows no other format than that and text."""
    return click.option("--json", "as_json", is_flag=True, help=f"Write {schema} instead of text.")


def format_option(*formats: str) -> Option:
    """--format, and --json for short, given to the command as one `format_`."""
    options = (
        click.option("--format", "format_", type=click.Choice(formats), help="[default: text]"),
        click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
    )

    def decorate(function: Function) -> Function:
        @wraps(function)
        def command(*, format_: str | None, as_json: bool, **arguments: Any) -> None:
            if as_json and format_ not in (None, "json"):
                raise click.UsageError(f"--json and --format {format_}: give one of them")
            function(format_="json" if as_json else format_ or "text", **arguments)

        return with_options(command, options)

    return decorate


def gathered(parameter: str, record: type[Any], options: Sequence[Option]) -> Option:
    """`options`, given to the command as one `parameter`: the dataclass `record`, which has a
    field for each of them."""
    names = [field.name for field in fields(record)]

    def decorate(function: Function) -> Function:
        @wraps(function)
        def command(**arguments: Any) -> None:
            chosen = record(**{name: arguments.pop(name) for name in names})
            function(**{parameter: chosen}, **arguments)

        return with_options(command, options)

    return decorate


def with_options(function: Function, options: Sequence[Option]) -> Function:
    """The command with these options; help lists them in this order."""
    for option in reversed(options):
        function = option(function)
    return function
