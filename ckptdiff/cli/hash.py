"""`ckptdiff hash`: fingerprints and lock files."""

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
from ckptdiff.cli.output import finish, write_file
from ckptdiff.cli.progress import progress_sink
from ckptdiff.errors import UsageError


@click.command("hash")
@click.argument("directory", default=".", type=PATH, metavar="[DIR]")
@click.option("--lock", type=PATH, metavar="FILE", help="Write the digests to a lock file.")
@click.option("--verify", type=PATH, metavar="FILE", help="Exit 1 when DIR is not as locked.")
@click.option("--sha256", is_flag=True, help="With SHA-256 of the files, for `sha256sum -c`.")
@json_option("ckptdiff.hash/1")
@no_cache_option
@rehash_option
@jobs_option
@progress_option
def command(
    directory: Path,
    lock: Path | None,
    verify: Path | None,
    sha256: bool,
    as_json: bool,
    no_cache: bool,
    rehash: bool,
    jobs: int | None,
    progress: str,
) -> None:
    """Show the fingerprint of the checkpoint DIR and the digest of every tensor.

    The fingerprint depends on names, dtypes, shapes and bytes of the tensors and on nothing
    else: not on files, order or metadata.

    \b
    ckptdiff hash models/quantized/top10
    ckptdiff hash models/quantized/top10 --lock top10.lock --sha256
    ckptdiff hash models/quantized/top10 --verify top10.lock
    """
    if lock is not None and verify is not None:
        raise click.UsageError("--lock and --verify: give one of them")
    if verify is not None and sha256:
        raise click.UsageError("--verify compares tensors; `sha256sum -c` compares the files")
    if lock is not None:
        api.refuse_inside(lock)
    sink = progress_sink(progress)
    if verify is not None:
        compared = api.verify(
            directory, verify, cache=not no_cache, rehash=rehash, jobs=jobs, sink=sink
        )
        finish(compared, as_json)
    report = api.hash(
        directory, sha256=sha256, cache=not no_cache, rehash=rehash, jobs=jobs, sink=sink
    )
    if lock is not None:
        _refuse_other(lock)
        write_file(lock, api.lock(report))
    finish(report, as_json)


def _refuse_other(lock: Path) -> None:
    """Only a lock may be written over by one."""
    if not lock.is_file():
        return
    head = b"# ckptdiff lock"
    with lock.open("rb") as file:  # its beginning only: it may be somebody's weights
        found = file.read(len(head))
    if found != head:
        raise UsageError(f"{lock} is there and is no lock file", "Name another file.")
