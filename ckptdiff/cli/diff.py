"""`ckptdiff diff`: two checkpoints, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.options import PATH, progress_option
from ckptdiff.cli.output import use_color, write_stdout
from ckptdiff.cli.progress import progress_sink
from ckptdiff.records.delta import DeltaStatus, DiffOrder

ORDERS = ("error", "max", "changed", "cosine", "name")
STATUSES: tuple[DeltaStatus, ...] = (
    "same",
    "changed",
    "dtype",
    "shape",
    "only_a",
    "only_b",
    "unread",
)
SHOWN = 20  # rows of text; JSON has all of them


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
    help=f"Rows of each status.  [default: {SHOWN}, with --json all]",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(STATUSES),
    help="Rows of this status. Repeatable.  [default: all but same, with --json all]",
)
@click.option("--json", "as_json", is_flag=True, help="Write ckptdiff.diff/1 instead of text.")
@click.option("--no-cache", is_flag=True, help="Neither use nor write remembered digests.")
@click.option("--rehash", is_flag=True, help="Read every byte again, remembered or not.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Threads.  [default: all cores]")
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
        only = only or STATUSES[1:]
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
