"""`ckptdiff check`: the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ckptdiff import api
from ckptdiff.cli.console import say_error
from ckptdiff.cli.options import (
    PATH,
    base_option,
    config_option,
    format_option,
    jobs_option,
    no_cache_option,
    output_option,
    progress_option,
    rehash_option,
)
from ckptdiff.cli.output import format_of, use_color, write_file, write_stdout
from ckptdiff.cli.progress import progress_sink
from ckptdiff.errors import CkptdiffError, UsageError
from ckptdiff.records.report import CheckReport
from ckptdiff.records.settings import FAIL_ON, REQUIREMENTS, FailOn
from ckptdiff.report.escape import printable

SUFFIXES: dict[str, api.Format] = {".txt": "text", ".json": "json", ".md": "markdown"}


@click.command("check")
@click.argument("roots", metavar="[ROOT]...", nargs=-1, type=PATH)
@base_option
@click.option("--no-hash", is_flag=True, help="Judge from headers alone, in milliseconds.")
@click.option("--deep", is_flag=True, help="Recompute every quantized weight from the base.")
@format_option("text", "json", "markdown")
@output_option(".json, .md or .txt")
@click.option("--select", multiple=True, metavar="CODE", help="Run only these rules (CK3, CK501).")
@click.option("--ignore", multiple=True, metavar="CODE", help="Do not count these rules' findings.")
@click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    help="The severity that makes exit code 1.  [default: error]",
)
@click.option(
    "--require", multiple=True, metavar="WHAT", help="base, manifest: exit 2 when there is none."
)
@click.option("--expect", type=click.IntRange(0), metavar="N", help="Exit 2 for fewer schemes.")
@config_option
@no_cache_option
@rehash_option
@jobs_option
@progress_option
def command(
    roots: tuple[Path, ...],
    base: Path | None,
    no_hash: bool,
    deep: bool,
    format_: api.Format,
    output: tuple[Path, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: FailOn | None,
    require: tuple[str, ...],
    expect: int | None,
    config: Path | None,
    no_cache: bool,
    rehash: bool,
    jobs: int | None,
    progress: str,
) -> None:
    """Judge every scheme below ROOT (default: the current directory).

    Says in one sentence what is wrong, lists findings with a next step each, and names the
    schemes that are safe to use. Exit code 0: nothing at or above --fail-on; 1: something;
    2: not everything could be looked at.

    \b
    ckptdiff check models/quantized --base models/base
    ckptdiff check . --no-hash                      # seconds on a slow disk
    ckptdiff check . --deep --base models/base      # recompute codes from base
    ckptdiff check . --expect 10 --json > report.json
    ckptdiff check . --require base,manifest -o report.txt -o report.json
    """
    files = [(path, format_of(path, SUFFIXES)) for path in output]
    for path, _ in files:
        api.refuse_inside(path)
    reports: list[CheckReport] = []
    codes: list[int] = []
    failed: CkptdiffError | None = None
    for root in roots or (Path(),):
        try:
            settings = api.load_settings(root, config)
            report = api.check(
                root,
                base=base,
                hashes=not no_hash,
                deep=deep,
                select=_split(select),
                ignore=_split(ignore),
                fail_on=fail_on,
                require=_requirements(require),
                expect=expect,
                settings=settings,
                cache=not no_cache,
                rehash=rehash,
                jobs=jobs,
                sink=progress_sink(progress),
            )
        except UsageError as error:
            # The other roots are judged all the same.
            say_error(error)
            failed = error
            continue
        reports.append(report)
        codes.append(api.exit_code(report, fail_on or settings.fail_on or "error"))
    many = len(roots) > 1
    for path, kind in files if reports else ():
        write_file(path, _together(reports, kind, many=many))
    if reports:
        write_stdout(_together(reports, format_, many=many, color=use_color()))
    # Of several roots, a finding in one outweighs something unread in another.
    worst = max(codes, default=0) if failed is None else failed.exit_code
    raise click.exceptions.Exit(1 if 1 in codes else worst)


def _together(
    reports: Sequence[CheckReport], kind: api.Format, *, many: bool, color: bool = False
) -> bytes:
    """One report, or those of several roots: a JSON array, or texts under their roots."""
    parts = [api.render(report, kind, color=color) for report in reports]
    if not many:
        return b"".join(parts)
    if kind == "json":
        return b"[" + b",".join(part.rstrip() for part in parts) + b"]\n"
    heads = [f"{'# ' * (kind == 'markdown')}{printable(report.root)}:\n\n" for report in reports]
    return b"\n".join(h.encode() + part for h, part in zip(heads, parts, strict=True))


def _split(values: tuple[str, ...]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _requirements(values: tuple[str, ...]) -> list[api.Requirement]:
    wanted = _split(values)
    known: dict[str, api.Requirement] = {each: each for each in REQUIREMENTS}
    if unknown := [item for item in wanted if item not in known]:
        raise click.BadParameter(
            f"{unknown[0]!r} is neither {' nor '.join(REQUIREMENTS)}", param_hint="--require"
        )
    return [known[item] for item in wanted]
