"""`ckptdiff reexport`: repairs schemes from what other checkpoints hold, or by ModelOpt."""

from __future__ import annotations

from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.composing import Wanted, carry_out, composing_options, donor_option
from ckptdiff.cli.exporting import export_options
from ckptdiff.cli.options import PATH, base_option
from ckptdiff.cli.progress import progress_sink
from ckptdiff.records.export import ExportOptions
from ckptdiff.records.plan import ENGINES, Engine


@click.command("reexport")
@click.argument("schemes", metavar="SCHEME...", nargs=-1, required=True, type=PATH)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="compose: from tensors of donors and base, without running a model. modelopt: "
    "quantized anew. autoquant: by a new search. auto: compose where all of it is provable.",
)
@base_option
@donor_option(". Repeatable. Default: the schemes of its family.")
@click.option(
    "--out",
    type=PATH,
    metavar="ROOT",
    help="Write below this directory, under the schemes' names.",
)
@click.option("--in-place", is_flag=True, help="Take the scheme's place; it becomes .broken-N.")
@export_options
@composing_options
def command(
    schemes: tuple[Path, ...],
    engine: Engine,
    base: Path | None,
    donors: tuple[Path, ...],
    out: Path | None,
    in_place: bool,
    options: ExportOptions,
    wanted: Wanted,
) -> None:
    """Write each SCHEME anew, as its coverage manifest says.

    Selected modules come from a donor that holds them quantized, all others from base:
    bit for bit what ModelOpt would export. Donors are proven against base first. The
    result is checked before it gets its name, <scheme>_v2 beside the original unless
    --out or --in-place is given. The original is never written to, and goes on failing
    `ckptdiff check` where it stays.

    \b
    ckptdiff reexport models/quantized/top10 --dry-run
    ckptdiff reexport models/quantized/top* --donor models/all_layers --in-place
    ckptdiff reexport models/quantized/top10 --engine modelopt --calib my.jsonl
    """
    sink = progress_sink(wanted.progress)
    planned = api.plan_reexport(
        schemes,
        engine=engine,
        base=base,
        donors=donors,
        out=out,
        in_place=in_place,
        options=options,
        sink=sink,
    )
    carry_out(planned, wanted, sink)
