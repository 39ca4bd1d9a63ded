"""Options that more than one command has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """A path; the empty one, which a shell makes of a variable that is not set, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; a variable that is not set? Write . for this directory.")
        return super().convert(value, param, ctx)


# Whether a path can be read is for the report to say, not for the parser of options.
PATH = _Path(path_type=Path, readable=False)

progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "off"]),
    default="auto",
    show_default=True,
    help="On stderr: a line on terminals, JSON lines, or nothing.",
)
