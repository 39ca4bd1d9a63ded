"""How fast hashing is, measured in one run against the tools people would use instead.

    python tests/bench/hashing.py [--gb 4] [--dir DIR] [--repeats 7]

Needs `xxhsum` (Debian package xxhash), `xargs`, and safetensors with torch. Writes random
data below DIR (a directory of its own, removed afterwards), lets it settle in the page
cache, measures ours and the rival in turn, A B A B, and keeps the least of each: on a busy
machine the least is what the work itself costs. Rivals are charged what their processes
use, ours what hashing uses (not the start of the interpreter). Ends with status 1 if a
target is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard
from ckptdiff.records.checkpoint import Shard

MB = 1_000_000
CPUS = os.cpu_count() or 1
FINITE = bytes(byte & 0x3F for byte in range(256))  # neither FP8 nor BF16 is NaN with these

# exec keeps the peak of the process that it was called in, which here has torch loaded; a
# process that was only forked starts from its own size.
RSS = """
import os, resource, sys
from pathlib import Path
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
hash_shards([read_shard(path.parent, path.name) for path in map(Path, sys.argv[1:])], scan=False)
print(peak() - before)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that something took: by the clock, and of all processors together."""

    wall: float
    cpu: float


def main() -> int:
    """Run everything and print one line a figure; 0 if every target was met."""
    parser = argparse.ArgumentParser(
        description="Measure hashing against xxhsum, load_file and orjson.",
        epilog="Needs xxhsum, xargs and torch, and about 2 x GB of disk and of page cache.",
    )
    parser.add_argument("--gb", type=float, default=4.0, help="size of the big directory")
    parser.add_argument("--dir", type=Path, help="where to write (default: the temp directory)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds, of which the least counts")
    options = parser.parse_args()
    for tool in ("xxhsum", "xargs"):
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed")
    print(f"{'what':58} {'ours':>11} {'rival':>11} {'ratio':>8} {'target':>8}")
    met = []
    parts: list[Callable[[Path, argparse.Namespace], list[bool]]] = [
        big_directory,
        small_tensors,
        ten_directories,
        headers,
    ]
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="ckptdiff-bench-", dir=options.dir) as name:
            met += part(Path(name), options)
    print(f"{sum(met)} of {len(met)} targets met")
    return 0 if all(met) else 1


def big_directory(folder: Path, options: argparse.Namespace) -> list[bool]:
    """700 tensors as an FP8 export has them: one huge, 349 weights, 350 scales; 4 shards."""
    total = int(options.gb * 1e9)
    huge, weight = total // 10, total * 9 // 10 // 349
    groups: list[list[int]] = [[huge, 4], [], [], []]
    for number in range(349):
        # The first shard has the huge tensor, so it gets fewer of the others.
        groups[number % 4 if number % 10 else 1 + number // 10 % 3] += [weight, 4]
    paths = [
        write(folder / f"model-{number}.safetensors", sizes) for number, sizes in enumerate(groups)
    ]
    assert sum(map(len, groups)) == 700
    ours, rival = compare(
        lambda: hash_shards(read(paths), scan=False),
        ["xargs", "-0", f"-P{CPUS}", "-n1", "xxhsum", "-H2", "-q"],
        paths,
        options.repeats,
    )
    speed = f"{total / ours.wall / 1e9:.1f} GB/s"
    done = subprocess.run(
        [sys.executable, "-c", RSS, *map(str, paths)], check=True, capture_output=True
    )
    above = int(done.stdout) / 1024
    return [
        line(
            f"{options.gb:g} GB, 700 tensors, with headers, wall ({speed})",
            f"{ours.wall:.3f} s",
            f"{rival.wall:.3f} s",
            ours.wall / rival.wall,
            1.5,
        ),
        line("peak memory above the interpreter", f"{above:.1f} MiB", "64 MiB", above / 64, 1.0),
    ]


def small_tensors(folder: Path, options: argparse.Namespace) -> list[bool]:
    """18,000 tensors; against one file that holds them all, and against a file for each."""
    met = []
    for size in (64, 4096, 8192, 65_536):
        whole = write(folder / f"{size}.safetensors", [size] * 18_000)
        shards = read([whole])
        ours, rival = compare(
            partial(hash_shards, shards, scan=False),
            ["xargs", "-0", "xxhsum", "-H2", "-q"],
            [whole],
            options.repeats * 2,
        )
        limit = 2.2 if size >= 4096 else None  # below, xxhsum reads a megabyte and is done
        met += small_line(f"18,000 tensors of {size} B, CPU; xxhsum: 1 file", ours, rival, limit)
        if size > 8192:
            continue
        each = folder / f"each-{size}"
        each.mkdir()
        for number in range(18_000):
            (each / f"{number:05}").write_bytes(os.urandom(size))
        ours, rival = compare(
            partial(hash_shards, shards, scan=False),
            ["xargs", "-0", "xxhsum", "-H2", "-q"],
            sorted(each.iterdir()),
            3,
        )
        what = f"18,000 tensors of {size} B, CPU; xxhsum: 18,000 files"
        met += small_line(what, ours, rival, 2.2)
    return met


def small_line(what: str, ours: Cost, rival: Cost, limit: float | None) -> list[bool]:
    texts = f"{ours.cpu * 1e3:.1f} ms", f"{rival.cpu * 1e3:.1f} ms"
    met = line(what, *texts, ours.cpu / rival.cpu, limit)
    return [met] if limit is not None else []


def ten_directories(folder: Path, options: argparse.Namespace) -> list[bool]:
    """Ten schemes against two, and against loading and comparing all 45 pairs.

    One pair is measured; 45 pairs cost 45 times as much, since nothing of a pair is kept.
    The schemes are equal, as in the founding bug, and without NaN, as weights are, so no
    comparison ends early. What a pair costs depends on its dtype: FP8, which the sweeps
    consist of, is the target; BF16, which torch compares faster, is printed beside it.
    """
    size = int(options.gb * 1e9 / 10)
    first = write(folder / "top0.safetensors", [size // 100] * 100, "F8_E4M3")
    paths = [first, *(folder / f"top{number}.safetensors" for number in range(1, 10))]
    for path in paths[1:]:
        shutil.copyfile(first, path)
    ten, two = [], []
    for _ in range(options.repeats):
        ten.append(timed(lambda: hash_shards(read(paths), scan=False)))
        two.append(timed(lambda: hash_shards(read(paths[:2]), scan=False)))
    ours, fewer = least(ten), least(two)
    met = [
        line(
            f"10 directories of {size / MB:,.0f} MB against 2 of them, CPU",
            f"{ours.cpu * 1e3:.0f} ms",
            f"{fewer.cpu * 1e3:.0f} ms",
            ours.cpu / fewer.cpu,
            6.0,
        )
    ]
    for dtype, limit in (("F8_E4M3", 1 / 100), ("BF16", None)):
        one = write(folder / "one.safetensors", [size // 200 * 2] * 100, dtype)
        other = folder / "other.safetensors"
        shutil.copyfile(one, other)
        naive = least([timed(partial(compare_pair, one, other)) for _ in range(3)]).cpu * 45
        fits = line(
            f"10 directories, CPU; load_file: 45 x one pair, {dtype}",
            f"{ours.cpu:.3f} s",
            f"{naive:.1f} s",
            ours.cpu / naive,
            limit,
        )
        met += [fits] if limit is not None else []
    return met


def compare_pair(one: Path, other: Path) -> list[str]:
    """The tensors that differ, as a short script without ckptdiff would find them."""
    a, b = load_file(one), load_file(other)
    return [name for name in a if not torch.equal(a[name], b[name])]


def headers(folder: Path, options: argparse.Namespace) -> list[bool]:
    """The ratio that `headers.py` prints, in a process of its own."""
    script = Path(__file__).with_name("headers.py")
    out = subprocess.run(
        [sys.executable, str(script)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ).stdout
    ours, rival, ratio = (
        float(match[1])
        for what in ("ours", "orjson", "ratio")
        if (match := re.search(rf"^{what}\s+([\d.]+)", out, re.MULTILINE))
    )
    what = "headers of 10 x 90,000 tensors, CPU; orjson, gc off"
    return [line(what, f"{ours:.3f} s", f"{rival:.3f} s", ratio, 1.5)]


def line(what: str, ours: str, rival: str, ratio: float, target: float | None) -> bool:
    """Print one figure; whether it meets its target (the ratio may be at most that)."""
    met = target is None or ratio <= target
    verdict = "(for information)" if target is None else "met" if met else "NOT MET"
    limit = "" if target is None else f"{target:.2f}"
    print(f"{what:58} {ours:>11} {rival:>11} {ratio:8.4f} {limit:>8}  {verdict}", flush=True)
    return met


def compare(
    ours: Callable[[], object], rival: Sequence[str], paths: Sequence[Path], repeats: int
) -> tuple[Cost, Cost]:
    """The least of `repeats` rounds of ours, and of a program that reads paths from stdin."""
    names = b"\0".join(os.fsencode(path) for path in paths)
    a, b = [], []
    for _ in range(repeats + 1):
        a.append(timed(ours))
        b.append(timed_program(rival, names))
    return least(a[1:]), least(b[1:])  # the first round only warmed the page cache


def timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    cost = Cost(time.perf_counter() - wall, time.process_time() - cpu)
    del result  # freeing it is not part of the work
    return cost


def timed_program(command: Sequence[str], stdin: bytes) -> Cost:
    wall, cpu = time.perf_counter(), children_cpu()
    subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, check=True)
    return Cost(time.perf_counter() - wall, children_cpu() - cpu)


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def least(costs: Sequence[Cost]) -> Cost:
    return Cost(min(cost.wall for cost in costs), min(cost.cpu for cost in costs))


def write(path: Path, sizes: Sequence[int], dtype: str = "U8") -> Path:
    """A safetensors file of random tensors of these sizes, in bytes; floats are finite."""
    width = 2 if dtype == "BF16" else 1
    entries, end = {}, 0
    for number, size in enumerate(sizes):
        name = f"model.language_model.layers.{number}.mlp.down_proj.weight"
        offsets = [end, end + size]
        entries[name] = {"dtype": dtype, "shape": [size // width], "data_offsets": offsets}
        end += size
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for at in range(0, end, 1 << 24):
            block = os.urandom(min(1 << 24, end - at))
            file.write(block if dtype == "U8" else block.translate(FINITE))
    return path


def read(paths: Sequence[Path]) -> list[Shard]:
    shards = [read_shard(path.parent, path.name) for path in paths]
    assert all(shard.header is not None and not shard.defects for shard in shards)
    return shards


if __name__ == "__main__":
    sys.exit(main())
