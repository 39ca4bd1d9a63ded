"""`ckptdiff doctor`: what this installation can do."""

from __future__ import annotations

import click

from ckptdiff import api
from ckptdiff.cli.options import json_option
from ckptdiff.cli.output import show


@click.command("doctor")
@json_option("ckptdiff.doctor/1")
def command(as_json: bool) -> None:
    """Show versions and devices, and what each missing extra would enable.

    \b
    ckptdiff doctor
    """
    show(api.doctor(), as_json)
