"""`ckptdiff diff`: two checkpoints, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

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
from ckptdiff.cli.output import finish
from ckptdiff.cli.progress import progress_sink
from ckptdiff.records.delta import ORDERS, SHOWN_ROWS, STATUSES, UNSHOWN, DeltaStatus, DiffOrder


@click.command("diff")
@click.argument("a", type=PATH, metavar="A")
@click.argument("b", type=PATH, metavar="B")
@click.option("--raw", is_flag=True, help="Compare stored codes as codes too.")
@click.option("--tensors", metavar="GLOB", help="Only tensors whose name matches.")
@click.option("--sort", type=click.Choice(ORDERS), default="error", show_default=True)
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    help=f"Rows of each status.  [default: {SHOWN_ROWS}, with --json all]",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(STATUSES),
    help=f"Rows of this status. Repeatable.  [default: all but {UNSHOWN}, with --json all]",
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
    ckptdiff diff top10 top50 --only dtype --sort max --limit 50
    ckptdiff diff old new --tensors '*.down_proj.weight' --raw --json
    """
    if not as_json:
        limit = SHOWN_ROWS if limit is None else limit
        only = only or tuple(status for status in STATUSES if status != UNSHOWN)
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
    finish(report, as_json)
