"""`ckptdiff rule`: the manuals."""

from __future__ import annotations

import click

from ckptdiff import api
from ckptdiff.cli.output import write_stdout


@click.command("rule")
@click.argument("code", required=False)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(code: str | None, format_: api.Format, as_json: bool) -> None:
    """Show the manual of the rule CODE, or the table of all rules.

    \b
    ckptdiff rule
    ckptdiff rule CK501
    ckptdiff rule identical-weights --format json
    """
    write_stdout(api.render(api.rule_table(code), "json" if as_json else format_))
