"""`ckptdiff diff`: two checkpoints, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from ckptdiff import api
from ckptdiff.cli.options import (
    PATH,
    jobs_option,
    json_option,
    no_cache_option,
    progress_option,
    rehash_option,
)
from ckptdiff.cli.output import use_color, write_stdout
from ckptdiff.cli.progress import progress_sink
from ckptdiff.records.delta import DeltaStatus, DiffOrder

STATUSES: tuple[DeltaStatus, ...] = get_args(DeltaStatus)
SHOWN = 20  # rows of text; JSON has all of them


@click.command("diff")
@click.argument("a", type=PATH, metavar="A")
@click.argument("b", type=PATH, metavar="B")
@click.option("--raw", is_flag=True, help="Compare stored codes as codes too.")
@click.option("--tensors", metavar="GLOB", help="Only tensors whose name matches.")
@click.option("--sort", type=click.Choice(get_args(DiffOrder)), default="error", show_default=True)
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    help=f"Rows of each status.  [default: {SHOWN}, with --json all]",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(STATUSES),
    help="Rows of this status. Repeatable.  [default: all but same, with --json all]",
)
@json_option("ckptdiff.diff/1")
@no_cache_option
@rehash_option
@jobs_option
@progress_option
def command(
    a: Path,
    b: Path,
    raw: bool,
    tensors: str | None,
    sort: DiffOrder,
    limit: int | None,
    only: tuple[DeltaStatus, ...],
    as_json: bool,
    no_cache: bool,
    rehash: bool,
    jobs: int | None,
    progress: str,
) -> None:
    """Compare the checkpoint B with the checkpoint A, tensor by tensor.

    Tensors are aligned by name and quantized weights dequantised; hashes come first, values
    only where hashes differ. Exit code 0: the same; 1: different; 2: not comparable, or not
    everything could be read.

    \b
    ckptdiff diff models/base models/quantized/top10
    ckptdiff diff top10 top50 --only changed --sort max --limit 50
    ckptdiff diff old new --tensors '*.down_proj.weight' --raw --json
    """
    if not as_json:
        limit = SHOWN if limit is None else limit
        only = only or tuple(status for status in STATUSES if status != "same")
    report = api.diff(
        a,
        b,
        raw=raw,
        tensors=tensors,
        sort=sort,
        limit=limit,
        only=only,
        cache=not no_cache,
        rehash=rehash,
        jobs=jobs,
        sink=progress_sink(progress),
    )
    write_stdout(api.render(report, "json" if as_json else "text", color=use_color()))
    raise click.exceptions.Exit(api.exit_code(report))
