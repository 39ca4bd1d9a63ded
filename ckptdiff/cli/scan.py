"""`ckptdiff scan`: the inventory."""

from __future__ import annotations

from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.options import PATH, base_option, json_option, progress_option
from ckptdiff.cli.output import finish
from ckptdiff.cli.progress import progress_sink


@click.command("scan")
@click.argument("root", default=".", type=PATH)
@base_option
@json_option("ckptdiff.scan/1")
@progress_option
def command(root: Path, base: Path | None, as_json: bool, progress: str) -> None:
    """List what lies below ROOT from headers alone: no tensor is read, nothing is judged.

    \b
    ckptdiff scan models/quantized
    ckptdiff scan . --json | jq '.schemes[] | {id, bytes, actual}'
    """
    report = api.scan(root, base=base, sink=progress_sink(progress))
    finish(report, as_json)
