"""How fast `diff` is, measured in one run against what people would write with torch.

    python tests/bench/difference.py [--gb 1.44] [--dir DIR] [--repeats 5]

Needs safetensors with torch. Two checkpoints of `--gb` each (BF16, 16 tensors) differ
everywhere; a third is the first as FP8 with a scale a tensor. Ours reads, dequantises and takes
all statistics of `diff`, its histogram and saturation included, from two directories that are
already hashed; the rival loads both and takes six statistics of whole tensors, or only the
largest difference. Both have all processors. Measured in turn, A B A B, the least counts;
start-up and imports are left out. Then two directories of 1 GB that differ in one element, the
whole `diff` without remembered digests against hashing both; the accuracy of the cosine distance;
and the peak memory for one tensor of `--large` GB. Ends with status 1 if a target is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from safetensors.torch import load_file

import ckptdiff
from ckptdiff.analysis.differing.alignment import align
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs.differing import compare
from ckptdiff.jobs.reading import read_one

TENSORS = 16  # as large as in the MLP of a model of 7 B
COLUMNS = 4096
SCALE = 3e-4

# A process that was only forked starts from its own size: see hashing.py.
RSS = """
import os, resource, sys
import ckptdiff, ckptdiff.api.comparing, ckptdiff.analysis.differing.operands
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
report = ckptdiff.diff(*sys.argv[1:], cache=False)
print(peak() - before, report.total.changed + report.total.dtype)
"""


def main() -> int:
    """Run everything and print one line a figure; 0 if every target was met."""
    parser = argparse.ArgumentParser(description="Measure diff against torch.")
    parser.add_argument("--gb", type=float, default=1.44, help="size of a BF16 checkpoint")
    parser.add_argument("--large", type=float, default=4.0, help="size of the largest tensor")
    parser.add_argument("--dir", type=Path, help="where to write (default: the temp directory)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the least counts")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{'what':58} {'ours':>11} {'rival':>11} {'ratio':>8} {'target':>8}")
    met: list[bool] = []
    for part in (statistics_of_all, one_element, cosine, memory):
        with tempfile.TemporaryDirectory(prefix="ckptdiff-bench-", dir=options.dir) as name:
            met += part(Path(name), options)
    print(f"{sum(met)} of {len(met)} targets met")
    return 0 if all(met) else 1


def statistics_of_all(folder: Path, options: argparse.Namespace) -> list[bool]:
    """Two BF16 checkpoints that differ everywhere, and FP8 with scales against BF16."""
    rows = int(options.gb * 1e9) // TENSORS // 2 // COLUMNS
    rng = np.random.default_rng(0)
    for number in range(TENSORS):
        values = rng.standard_normal((rows, COLUMNS), np.float32) * np.float32(0.02)
        noise = rng.standard_normal((rows, COLUMNS), np.float32) * np.float32(0.01)
        key = f"model.layers.{number}.mlp.down_proj"
        near = values * (1 + noise)
        codes = (values / np.float32(SCALE)).astype(ml_dtypes.float8_e4m3fn)
        add(folder / "a", number, {f"{key}.weight": values.astype(ml_dtypes.bfloat16)})
        add(folder / "b", number, {f"{key}.weight": near.astype(ml_dtypes.bfloat16)})
        scale = np.array(SCALE, np.float32)
        add(folder / "c", number, {f"{key}.weight": codes, f"{key}.weight_scale": scale})
    found = []
    for what, other, rival, nbytes, target in (
        ("BF16 against BF16, six statistics", "b", six_statistics, 4, 12.0),
        ("BF16 against BF16; torch: largest difference alone", "b", largest, 4, 5.0),
        ("FP8 with scale against BF16, six statistics", "c", six_statistics, 3, 12.0),
    ):
        a, b = folder / "a", folder / other
        ours, theirs = in_turn(arithmetic(a, b), partial(rival, a, b), options.repeats)
        size = rows * COLUMNS * TENSORS * nbytes / 1e9
        found.append(
            faster(
                what, f"{size / ours:.2f} GB/s", f"{size / theirs:.2f} GB/s", theirs / ours, target
            )
        )
    return found


def arithmetic(a: Path, b: Path) -> Callable[[], object]:
    """The part of `diff` that comes after hashing."""
    checkpoints = read_one(a), read_one(b)
    digests = hash_shards([shard for checkpoint in checkpoints for shard in checkpoint.shards])
    one, other = (scheme_evidence(checkpoint, digests) for checkpoint in checkpoints)
    pairs = align(one, other)
    rest = {"raw": False, "jobs": None, "sink": silent, "cancel": CancelToken()}
    return lambda: compare(one, other, pairs, **rest)


def six_statistics(a: Path, b: Path) -> list[tuple[float, ...]]:
    """What a script without ckptdiff would print of each tensor."""
    found = []
    for left, right in zip(
        sorted(a.glob("*.safetensors")), sorted(b.glob("*.safetensors")), strict=True
    ):
        one, other = load_file(left), load_file(right)
        for name, x in one.items():
            x, y = x.float(), other[name].float()
            if f"{name}_scale" in other:
                y = y * other[f"{name}_scale"]
            d = y - x
            found.append(
                (
                    d.abs().max().item(),
                    d.abs().mean().item(),
                    d.square().mean().sqrt().item(),
                    (d.norm() / x.norm()).item(),
                    (10 * torch.log10(x.square().sum() / d.square().sum())).item(),
                    1 - torch.cosine_similarity(x.flatten(), y.flatten(), 0).item(),
                )
            )
    return found


def largest(a: Path, b: Path) -> list[float]:
    found = []
    for left, right in zip(
        sorted(a.glob("*.safetensors")), sorted(b.glob("*.safetensors")), strict=True
    ):
        one, other = load_file(left), load_file(right)
        found += [(other[n].float() - x.float()).abs().max().item() for n, x in one.items()]
    return found


def one_element(folder: Path, options: argparse.Namespace) -> list[bool]:
    """1 GB each, tensors of 16 MB, one element changed: found, located, and how fast."""
    rng = np.random.default_rng(1)
    for number in range(62):
        values = (rng.standard_normal((2048, COLUMNS), np.float32)).astype(ml_dtypes.bfloat16)
        name = f"model.layers.{number}.mlp.down_proj.weight"
        add(folder / "a", number, {name: values})
        if number == 40:
            values = values.copy()
            values[1234, 567] *= 2
        add(folder / "b", number, {name: values})
    a, b = folder / "a", folder / "b"
    report = ckptdiff.diff(a, b, cache=False)
    (row,) = (row for row in report.tensors if row.status != "same")
    located = row.name == "model.layers.40.mlp.down_proj.weight"
    located &= row.first_difference == (1234, 567)

    def hash_both() -> None:
        shards = [shard for path in (a, b) for shard in read_one(path).shards]
        hash_shards(shards, scan=False)

    ours, hashing = in_turn(
        partial(ckptdiff.diff, a, b, cache=False), hash_both, options.repeats * 3
    )
    return [
        line("1 GB each, one element differs: found and located", str(located), "True", 1.0, None)
        and located,
        slower("1 GB each, one element differs; rival: hash both", ours, hashing, 1.3),
    ]


def cosine(folder: Path, options: argparse.Namespace) -> list[bool]:
    """The distance of vectors that are nearly parallel, against float64 sums of all."""
    rng = np.random.default_rng(2)
    worst = 0.0
    for wanted in (1e-5, 1e-6, 1e-7):
        x = rng.standard_normal(1 << 22).astype(np.float32)
        y = (x + rng.standard_normal(x.size) * np.sqrt(2 * wanted)).astype(np.float32)
        add(folder / f"a{wanted}", 0, {"x.weight": x.reshape(-1, COLUMNS)})
        add(folder / f"b{wanted}", 0, {"x.weight": y.reshape(-1, COLUMNS)})
        report = ckptdiff.diff(folder / f"a{wanted}", folder / f"b{wanted}", cache=False)
        left, right = x.astype(np.longdouble), y.astype(np.longdouble)
        exact = 1 - (left @ right) / np.sqrt((left @ left) * (right @ right))
        worst = max(worst, abs(float(report.tensors[0].cosine_distance or 0) / float(exact) - 1))
    print(f"  (cosine distances of 1e-5 to 1e-7; relative error {worst:.1e})")
    return [
        line("cosine distance at 1e-7, relative error", f"{worst:.1e}", "1e-4", worst / 1e-4, 1.0)
    ]


def memory(folder: Path, options: argparse.Namespace) -> list[bool]:
    """One tensor of many GB, sparse but for its header; the other has one byte elsewhere."""
    found = []
    for dtype, width in (("BF16", 2), ("F8_E4M3", 1)):
        size = int(options.large * 1e9) // width // COLUMNS * COLUMNS * width
        shape = [size // width // COLUMNS, COLUMNS]
        paths = []
        for name in ("a", "b"):
            path = folder / f"{dtype}-{name}"
            sparse(path, "model.layers.0.mlp.down_proj", dtype, shape, size)
            paths.append(path)
        with (paths[1] / "model.safetensors").open("r+b") as file:
            file.seek(size // 2)
            file.write(b"\x01" * 64)
        done = subprocess.run(
            [sys.executable, "-c", RSS, *map(str, paths)], check=True, capture_output=True
        )
        above, differing = int(done.stdout.split()[0]) / 1024, int(done.stdout.split()[1])
        assert differing == 1
        what = f"peak memory above the interpreter, {options.large:g} GB of {dtype}"
        found.append(line(what, f"{above:.1f} MiB", "150 MiB", above / 150, 1.0))
    return found


def add(folder: Path, number: int, tensors: Mapping[str, np.ndarray]) -> None:
    """Another file of a checkpoint."""
    folder.mkdir(exist_ok=True)
    names = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float32": "F32"}
    entries, end = {}, 0
    for name, array in tensors.items():
        offsets = [end, end + array.nbytes]
        entries[name] = {
            "dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets
        }  # fmt: skip
        end += array.nbytes
    header = json.dumps(entries).encode()
    with (folder / f"model-{number:05}.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for array in tensors.values():
            file.write(array.tobytes())


def sparse(folder: Path, module: str, dtype: str, shape: list[int], size: int) -> None:
    folder.mkdir()
    entries = {f"{module}.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    tail = b""
    if dtype != "BF16":
        offsets = [size, size + 4]
        entries[f"{module}.weight_scale"] = {"dtype": "F32", "shape": [], "data_offsets": offsets}
        tail = struct.pack("<f", 0.5)
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.seek(size, os.SEEK_CUR)
        file.write(tail)
        file.truncate(8 + len(header) + size + len(tail))


def wall(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    del result  # freeing it is not part of the work
    return seconds


def in_turn(
    ours: Callable[[], object], rival: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """The least of `repeats` rounds of each, by the clock; the first round only warms up."""
    rounds = [(wall(ours), wall(rival)) for _ in range(repeats + 1)][1:]
    return min(a for a, _ in rounds), min(b for _, b in rounds)


def faster(what: str, ours: str, rival: str, ratio: float, target: float) -> bool:
    """A line whose ratio must be at least the target."""
    met = ratio >= target
    print(f"{what:58} {ours:>11} {rival:>11} {ratio:8.2f} {target:>8.2f}  {said(met)}", flush=True)
    return met


def slower(what: str, ours: float, rival: float, target: float) -> bool:
    """A line whose ratio may be at most the target."""
    return line(what, f"{ours * 1e3:.0f} ms", f"{rival * 1e3:.0f} ms", ours / rival, target)


def line(what: str, ours: str, rival: str, ratio: float, target: float | None) -> bool:
    met = target is None or ratio <= target
    limit = "" if target is None else f"{target:.2f}"
    print(f"{what:58} {ours:>11} {rival:>11} {ratio:8.4f} {limit:>8}  {said(met)}", flush=True)
    return met


def said(met: bool) -> str:
    return "met" if met else "NOT MET"


if __name__ == "__main__":
    sys.exit(main())
