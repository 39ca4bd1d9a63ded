"""`ckptdiff doctor`: what this installation can do."""

from __future__ import annotations

import click

from ckptdiff import api
from ckptdiff.cli.options import json_option
from ckptdiff.cli.output import use_color, write_stdout


@click.command("doctor")
@json_option("ckptdiff.doctor/1")
def command(as_json: bool) -> None:
    """Show versions and devices, and what each missing extra would enable.

    \b
    ckptdiff doctor
    """
    report = api.doctor()
    write_stdout(api.render(report, "json" if as_json else "text", color=use_color()))
