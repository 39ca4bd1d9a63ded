"""A corpus of healthy sweeps, exported by the real ModelOpt from tiny random models on a CPU.

`ensure(out, cells)` is for fixtures, `python -m tests.exports OUT` for people. The layout is

    OUT/<arch>-<tied|untied>-<dtype>/base/                   the full-precision model
    OUT/<arch>-<tied|untied>-<dtype>/<format>/<scheme>/      two schemes: top50 and top100

This module must stay cheap to import: torch, transformers and ModelOpt live in its children.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib.metadata
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from filelock import FileLock

from tests.exports_formats import FORMATS
from tests.exports_models import ARCHS

DTYPES = ("bf16", "f16", "f32")
_BUILDERS = ("exports_formats.py", "exports_models.py", "exports_modelopt.py")
_PACKAGES = ("nvidia-modelopt", "transformers", "torch")
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Host:
    """A full-precision model that sweeps are exported from."""

    arch: str
    tied: bool
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.arch}-{'tied' if self.tied else 'untied'}-{self.dtype}"


@dataclass(frozen=True)
class Cell:
    """One sweep of the corpus: a host in a format."""

    arch: str
    tied: bool
    dtype: str
    fmt: str

    @property
    def host(self) -> Host:
        return Host(self.arch, self.tied, self.dtype)

    @property
    def name(self) -> str:
        return f"{self.host.name}/{self.fmt}"


def cells(which: Literal["full", "ci"] = "full") -> tuple[Cell, ...]:
    """The matrix, BF16 first. ModelOpt's AWQ crashes on fused experts, so those are left out.

    `ci` keeps every format on every architecture, tied and untied, with a BF16 host, and the
    F16 and F32 hosts for every format on an untied Llama.
    """
    every = tuple(
        Cell(arch, tied, dtype, fmt)
        for dtype in DTYPES
        for arch in ARCHS
        for tied in (False, True)
        for fmt, form in FORMATS.items()
        if not (form.awq and arch == "qwen3_moe")
    )
    if which == "full":
        return every
    return tuple(
        cell for cell in every if cell.dtype == "bf16" or (cell.arch == "llama" and not cell.tied)
    )


def base_of(out: Path, cell: Cell) -> Path:
    """The full-precision checkpoint beside a cell's sweep."""
    return out / cell.host.name / "base"


def ensure(out: Path, wanted: Iterable[Cell]) -> dict[Cell, Path]:
    """Build what is missing and give each cell's ROOT. Processes that ask at once take turns."""
    wanted = tuple(wanted)
    build(out, wanted)
    return {cell: out / cell.name for cell in wanted}


def build(
    out: Path, wanted: Iterable[Cell], jobs: int | None = None, report: Report | None = None
) -> None:
    """Export the cells that lack a marker of this version of the builders, bases first."""
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        stamp = _stamp()
        missing = [cell for cell in wanted if not _is_done(out / cell.name, stamp)]
        if not missing:
            return
        bases = {cell.host: base_of(out, cell) for cell in missing}
        workers = min(jobs or os.cpu_count() or 1, len(missing))
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=start_child) as pool:
            todo = [each for each in bases.items() if not _is_done(each[1], stamp)]
            _run(pool, _build_base, [(host, folder, stamp) for host, folder in todo], report)
            _run(pool, _build_cell, [(cell, out, stamp) for cell in missing], report)


def _run(
    pool: ProcessPoolExecutor,
    task: Callable[..., tuple[str, float]],
    arguments: Sequence[tuple[object, ...]],
    report: Report | None,
) -> None:
    """Run tasks in order of submission; the first failure stops the build."""
    futures = [pool.submit(task, *each) for each in arguments]
    try:
        for future in as_completed(futures):
            name, seconds = future.result()
            if report:
                report(name, seconds)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _stamp() -> str:
    """What a marker must say: a corpus by other builders or another ModelOpt is built again."""
    digest = hashlib.sha256()
    for name in _BUILDERS:
        digest.update(Path(__file__).with_name(name).read_bytes())
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return "\n".join([digest.hexdigest(), *versions])


def _marker(folder: Path) -> Path:
    """Beside the folder, so that a ROOT holds nothing but schemes."""
    return folder.with_name(f".{folder.name}.done")


def _is_done(folder: Path, stamp: str) -> bool:
    marker = _marker(folder)
    return marker.is_file() and marker.read_text() == stamp


def start_child() -> None:
    """One thread a child, and nothing of ModelOpt's chatter on the caller's terminal."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's child outlives a killed parent, and would write while the next build does."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _build_base(host: Host, folder: Path, stamp: str) -> tuple[str, float]:
    from tests.exports_modelopt import save_base

    return _afresh(folder, stamp, save_base, host.arch, host.tied, host.dtype)


def _build_cell(cell: Cell, out: Path, stamp: str) -> tuple[str, float]:
    from tests.exports_modelopt import save_sweep

    base = base_of(out, cell)
    return _afresh(out / cell.name, stamp, save_sweep, cell.arch, cell.dtype, cell.fmt, base)


def _afresh(
    folder: Path, stamp: str, write: Callable[..., None], *arguments: object
) -> tuple[str, float]:
    """Write a folder anew and mark it last, so that a killed build is seen and redone."""
    started = time.perf_counter()
    name = f"{folder.parent.name}/{folder.name}"
    _marker(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write(*arguments, folder)
    except Exception as error:
        raise RuntimeError(f"{name} did not export: {error}") from error
    _marker(folder).write_text(stamp)
    return name, time.perf_counter() - started


def _progress(total: int) -> tuple[Report, dict[str, float]]:
    """A reporter for stderr, and the seconds of every cell that it has seen."""
    seconds: dict[str, float] = {}

    def report(name: str, taken: float) -> None:
        seconds[name] = taken
        print(f"[{len(seconds):3}/{total}] {taken:5.1f} s  {name}", file=sys.stderr, flush=True)

    return report, seconds


def _summary(seconds: dict[str, float]) -> Iterator[str]:
    formats: dict[str, list[float]] = defaultdict(list)
    for name, taken in seconds.items():
        formats[name.rpartition("/")[2]].append(taken)
    for fmt, taken in formats.items():
        yield f"{fmt:16} {len(taken):3} cells  mean {mean(taken):5.2f} s  max {max(taken):5.2f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exports", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="*", metavar="GLOB", help="cells, as in llama-*-bf16/fp8")
    parser.add_argument("--ci", action="store_true", help="the thinned matrix")
    parser.add_argument("--jobs", type=int, help="children; as many as processors by default")
    parser.add_argument("--verify", action="store_true", help="check what lies on disk afterwards")
    options = parser.parse_args(arguments)

    matrix = cells("ci" if options.ci else "full")
    wanted = [cell for cell in matrix if fnmatch.fnmatch(cell.name, options.only)]
    if not wanted:
        parser.error(f"no cell matches {options.only!r}; a cell is called {matrix[0].name}")
    report, seconds = _progress(len(wanted) + len({cell.host for cell in wanted}))
    started = time.perf_counter()
    build(options.out, wanted, options.jobs, report)
    taken = time.perf_counter() - started
    print(*_summary(seconds), f"{len(seconds)} built in {taken:.0f} s", sep="\n", file=sys.stderr)
    if not options.verify:
        return 0

    from tests.exports_verify import problems

    found = [line for cell in wanted for line in problems(options.out / cell.name, cell.fmt)]
    print(*found, f"{len(found)} problems in {len(wanted)} cells", sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
