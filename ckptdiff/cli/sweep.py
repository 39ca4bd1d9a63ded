"""`ckptdiff sweep`: builds the schemes of a ranking."""

from __future__ import annotations

from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.composing import Wanted, carry_out, composing_options, donor_option
from ckptdiff.cli.exporting import export_options
from ckptdiff.cli.options import PATH, base_option
from ckptdiff.cli.progress import progress_sink
from ckptdiff.records.export import ExportOptions


@click.command("sweep")
@click.argument("baseline", metavar="[BASELINE]", required=False, type=PATH)
@click.option(
    "--baseline-from",
    "model",
    type=PATH,
    metavar="MODEL",
    help="Make BASELINE first, by a search over this full-precision model.",
)
@click.option(
    "--bits",
    type=click.FloatRange(0, 16, min_open=True),
    metavar="N",
    help="Effective bits that the search spends a weight.  [default: 11]",
)
@click.option(
    "--top", required=True, metavar="10,20,...", help="Percent of the ranking, a scheme each."
)
@click.option("--out", required=True, type=PATH, metavar="ROOT", help="Write the schemes below.")
@base_option
@donor_option(", before BASELINE. Repeatable.")
@export_options
@composing_options
def command(
    baseline: Path | None,
    model: Path | None,
    bits: float | None,
    top: str,
    out: Path,
    base: Path | None,
    donors: tuple[Path, ...],
    options: ExportOptions,
    wanted: Wanted,
) -> None:
    """Build one scheme a percentage along the sensitivity ranking of BASELINE.

    Each quantizes the least sensitive recipes and nothing else, and carries the coverage
    manifest that says so. BASELINE is the export of an AutoQuant search; what it left
    unquantized has to come from a --donor, such as an export of all layers.

    With --baseline-from there is no BASELINE yet: ModelOpt's AutoQuant ranks the layers of
    MODEL, all ranked layers are quantized once, and the schemes are composed of that.

    \b
    ckptdiff sweep models/q/fp8_all_layers --top 10,50,100 --out new --dry-run
    ckptdiff sweep models/q/fp8_all_layers --top 10,50,100 --out new \\
        --base models/base --donor models/q/fp8_everything --yes
    ckptdiff sweep --baseline-from models/base --top 10,50,100 --out new --yes
    """
    sink = progress_sink(wanted.progress)
    percents = [part.strip() for part in top.split(",") if part.strip()]
    if (baseline is None) == (model is None):
        raise click.UsageError("Name BASELINE, or a model by --baseline-from.")
    if model is not None:
        if base is not None or donors:
            raise click.UsageError(
                "--baseline-from makes its own donor, and MODEL is its base: leave out --base and "
                "--donor."
            )
        first = api.plan_baseline(
            model, top=percents, out=out, bits=bits, options=options, sink=sink
        )
        carry_out(first, wanted, sink, api.execute_baseline)
        return
    assert baseline is not None
    if bits is not None or options != ExportOptions():
        raise click.UsageError(
            "--bits and options of ModelOpt go with --baseline-from: leave them out for BASELINE."
        )
    planned = api.plan_sweep(baseline, top=percents, out=out, base=base, donors=donors, sink=sink)
    carry_out(planned, wanted, sink)
