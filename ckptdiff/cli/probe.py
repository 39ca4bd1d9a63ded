"""`ckptdiff probe`: what quantization does to a model's next token."""

from __future__ import annotations

from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.options import (
    PATH,
    base_option,
    format_option,
    jobs_option,
    no_cache_option,
    output_option,
    progress_option,
    trust_remote_code_option,
)
from ckptdiff.cli.output import format_of, use_color, write_file, write_stdout
from ckptdiff.cli.progress import progress_sink
from ckptdiff.errors import UsageError

SUFFIXES: dict[str, api.Format] = {
    ".txt": "text",
    ".json": "json",
    ".md": "markdown",
    ".svg": "svg",
}


@click.command("probe")
@click.argument("reference", metavar="[REF]", required=False, type=PATH)
@click.argument("others", metavar="[OTHER]...", nargs=-1, type=PATH)
@click.option("--sweep", type=PATH, metavar="ROOT", help="All schemes below ROOT against the base.")
@base_option
@click.option("--prompts", type=PATH, metavar="FILE", help="A prompt a line; or a .jsonl.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N prompts.")
@click.option("--max-length", type=click.IntRange(1), metavar="N", help="Cut to N tokens.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:0,cuda:1")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="To compute in. auto: float32 where it fits.",
)
@click.option(
    "--activations",
    type=click.Choice(["off", "static"]),
    default="off",
    show_default=True,
    help="static: round inputs by their input scales.",
)
@click.option("--raw", is_flag=True, help="Ignore scales, to show what that does.")
@click.option("--perplexity", is_flag=True, help="Of the prompts themselves, too.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Prompts computed together. Default: what suits the device.",
)
@trust_remote_code_option
@format_option("text", "json", "markdown", "svg")
@output_option(".json, .md, .svg or .txt")
@click.option("--log", type=PATH, metavar="FILE", help="Keep what the child process prints.")
@no_cache_option
@jobs_option
@progress_option
def command(
    reference: Path | None,
    others: tuple[Path, ...],
    sweep: Path | None,
    base: Path | None,
    prompts: Path | None,
    limit: int | None,
    max_length: int | None,
    device: str,
    dtype: str,
    activations: str,
    raw: bool,
    perplexity: bool,
    batch_size: int | None,
    trust_remote_code: bool,
    format_: api.Format,
    output: tuple[Path, ...],
    log: Path | None,
    no_cache: bool,
    jobs: int | None,
    progress: str,
) -> None:
    """Compare the logits behind the last token of prompts: OTHERs against REF.

    Weights are dequantised as their codes and scales say. KL, MSE and agreement come with
    intervals over the prompts, with what rounding alone does, and with the schemes that
    are the same. Needs torch: pip install 'ckptdiff[probe]'.

    \b
    ckptdiff probe models/base models/quantized/top10 models/quantized/top50
    ckptdiff probe --sweep models/quantized --base models/base -o curve.svg
    ckptdiff probe models/base models/quantized/top10 --prompts my.jsonl --json
    """
    files = [(path, format_of(path, SUFFIXES)) for path in output]
    for path in (*(path for path, _ in files), *([log] if log else [])):
        api.refuse_inside(path)
        if not path.absolute().parent.is_dir():  # said now, not after hours
            raise UsageError(
                f"{path.parent} is no directory", f"Make it, or put {path.name} elsewhere."
            )
        if path.is_dir():
            raise UsageError(f"{path} is a directory", "Name a file.")
    report = api.probe(
        reference,
        others,
        sweep=sweep,
        base=base,
        prompts=prompts,
        limit=limit,
        max_length=max_length,
        device=device,
        dtype=dtype,  # type: ignore[arg-type]
        activations=activations,  # type: ignore[arg-type]
        raw=raw,
        perplexity=perplexity,
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
        cache=not no_cache,
        jobs=jobs,
        log=log,
        sink=progress_sink(progress),
    )
    failed: UsageError | None = None
    for path, kind in files:
        try:
            write_file(path, api.render(report, kind))
        except UsageError as error:  # what took so long to compute is still to be shown
            failed = error
    write_stdout(api.render(report, format_, color=use_color()))
    if failed is not None:
        raise failed
    raise click.exceptions.Exit(api.exit_code(report))
