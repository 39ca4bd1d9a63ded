"""Options that more than one command has."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)

progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "off"]),
    default="auto",
    show_default=True,
    help="On stderr: a line on terminals, JSON lines, or nothing.",
)
