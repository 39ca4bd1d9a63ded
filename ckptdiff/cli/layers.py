"""`ckptdiff layers`: the grid of modules x schemes."""

from __future__ import annotations

from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.options import PATH, base_option, json_option, progress_option
from ckptdiff.cli.output import finish
from ckptdiff.cli.progress import progress_sink


@click.command("layers")
@click.argument("root", default=".", type=PATH)
@base_option
@click.option("--modules", metavar="GLOB", help="Only modules whose name matches.")
@click.option("--mismatches", is_flag=True, help="Only modules that a manifest contradicts.")
@json_option("ckptdiff.layers/1")
@progress_option
def command(
    root: Path,
    base: Path | None,
    modules: str | None,
    mismatches: bool,
    as_json: bool,
    progress: str,
) -> None:
    """Show the dtype of every module in every scheme below ROOT, from headers alone.

    A cell that the scheme's coverage manifest contradicts is marked by `!`.

    \b
    ckptdiff layers models/quantized
    ckptdiff layers . --modules '*.down_proj' --mismatches
    """
    report = api.layers(
        root, base=base, pattern=modules, mismatches=mismatches, sink=progress_sink(progress)
    )
    finish(report, as_json)
