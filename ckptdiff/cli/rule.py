"""`ckptdiff rule`: the manuals."""

from __future__ import annotations

import click

from ckptdiff import api
from ckptdiff.cli.options import format_option
from ckptdiff.cli.output import write_stdout


@click.command("rule")
@click.argument("code", required=False)
@format_option("text", "json")
def command(code: str | None, format_: api.Format) -> None:
    """Show the manual of the rule CODE, or the table of all rules.

    \b
    ckptdiff rule
    ckptdiff rule CK501
    ckptdiff rule identical-weights --format json
    """
    write_stdout(api.render(api.rule_table(code), format_))
