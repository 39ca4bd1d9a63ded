"""Options that more than one command has."""

from __future__ import annotations

from pathlib import Path

import click

# Whether a path can be read is for the report to say, not for the parser of options.
PATH = click.Path(path_type=Path, readable=False)

progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "off"]),
    default="auto",
    show_default=True,
    help="On stderr: a line on terminals, JSON lines, or nothing.",
)
