"""`check` against `xxhsum`, in one run: the first run, the second run, and its memory.

    python tests/bench/check.py [--gb 4] [--dir DIR]

Prints what, ours, rival, ratio, target; nothing is asserted. The sweep is one scheme of
700 tensors in files of a few GB for the first run, and ten schemes of 1,000 tensors each for
the second. Data is in the page cache, start-up of Python is left out of wall times, which
are taken A B A B; the smallest of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from build import SweepSpec, recipes, write_sweep

import ckptdiff
from ckptdiff.events import Event, Started

MB = 1_000_000
SETTLE = 2.5  # files younger than this are not remembered
LAYERS = 64  # a sweep of that many has 1,000 tensors a scheme


def write(path: Path, tensors: int, nbytes: int, seed: int) -> None:
    """A BF16 checkpoint with finite random values and a manifest-free config."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    block = rng.integers(0, 0x7F00, 4 * MB, np.uint16)  # every code of it is finite
    header, offset, size = {}, 0, nbytes // tensors // 2048 * 2048
    for n in range(tensors):
        header[f"model.layers.{n // 7}.mlp.{n % 7}.up_proj.weight"] = {
            "dtype": "BF16",
            "shape": [size // 2048, 1024],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        data = block.tobytes()
        for start in range(0, offset, len(data)):
            file.write(data[: min(len(data), offset - start)])
    config = {"architectures": ["A"], "hidden_size": 1, "num_hidden_layers": 1}
    (path / "config.json").write_text(json.dumps(config))


def parts(path: Path, count: int, folder: Path) -> list[Path]:
    """The same bytes as `count` plain files, for `xargs -P2 xxhsum`."""
    data = path / "model.safetensors"
    size = data.stat().st_size // count + 1
    found = []
    with data.open("rb") as file:
        for n in range(count):
            part = folder / f"part{n}"
            part.write_bytes(file.read(size))
            found.append(part)
    return found


def wall(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def bytes_read(root: Path, **options: object) -> int:
    total: list[int] = []

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.unit == "bytes":
            total.append(event.total or 0)

    ckptdiff.check(root, sink=sink, **options)  # type: ignore[arg-type]
    return sum(total)


def line(what: str, ours: str, rival: str, ratio: float, target: float) -> None:
    met = "met" if ratio <= target else "NOT MET"
    print(f"{what:<58}{ours:>12}{rival:>12}{ratio:>9.3f}{target:>9.2f}  {met}")


def first_run(folder: Path, gb: float, repeats: int) -> None:
    root = folder / "big"
    write(root / "scheme", 700, int(gb * 1e9), 0)
    files = parts(root / "scheme", 64, folder)
    names = "\0".join(map(str, files)).encode()

    def rival() -> None:
        command = ["xargs", "-0", "-P2", "-n8", "xxhsum", "-H2"]
        subprocess.run(command, input=names, stdout=subprocess.DEVNULL, check=True)

    ckptdiff.check(root, cache=False)  # imports, and the data into the page cache
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(wall(lambda: ckptdiff.check(root, cache=False)))
        theirs.append(wall(rival))
    a, b = min(ours), min(theirs)
    what = f"check of {gb:g} GB, 700 tensors, wall ({gb / a:.1f} GB/s)"
    line(what, f"{a:.3f} s", f"{b:.3f} s", a / b, 2.5)
    script = f"import ckptdiff; ckptdiff.check({str(root)!r}, cache=False)"
    used = peak(script) - peak("pass")
    line("peak memory above the interpreter", f"{used:.1f} MiB", "64 MiB", used / 64, 1)
    shutil.rmtree(root)


def peak(script: str) -> float:
    """MiB that a fresh interpreter with this script needs at most.

    Read from the kernel's mark of the process itself: what wait4 tells begins with the size
    of the parent that was forked.
    """
    last = "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    command = [sys.executable, "-c", f"{script}\n{last}"]
    return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1024


def second_run(folder: Path) -> None:
    percents = tuple(range(10, 101, 10))
    spec = SweepSpec(percents=percents, layers=LAYERS, ranking=tuple(recipes(LAYERS)))
    root = write_sweep(folder / "ten", spec)
    tensors = [row.tensors for row in ckptdiff.scan(root).schemes]
    time.sleep(SETTLE)
    first, second = bytes_read(root), bytes_read(root)
    line("tensor bytes that the second run reads", f"{second:,}", f"{first:,}", second, 0)
    cpu = [cpu_of([sys.executable, "-m", "ckptdiff", "check", str(root)]) for _ in range(10)]
    used, torch = min(cpu), min(cpu_of([sys.executable, "-c", "import torch"]) for _ in range(3))
    what = f"second run, ten schemes of {sum(tensors) // 10:,} tensors, CPU"
    line(f"{what}, start-up included", f"{used:.3f} s", "0.3 s", used / 0.3, 1)
    # 0.3 s was asked for where torch takes 1.01 s to import: this says how fast we are here.
    line(f"{what}; import torch", f"{used:.3f} s", f"{torch:.3f} s", used / torch, 0.296)


def cpu_of(command: list[str]) -> float:
    """CPU seconds of a process, start-up included."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(child.pid, 0)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=4.0, help="size of the first sweep")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to put the data (default: a temporary one)")
    options = parser.parse_args()
    print(f"{'what':<58}{'ours':>12}{'rival':>12}{'ratio':>9}{'target':>9}")
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="ckptdiff-bench-") as name:
        os.environ["XDG_CACHE_HOME"] = str(Path(name) / ".cache")
        first_run(Path(name), options.gb, options.repeats)
        second_run(Path(name))


if __name__ == "__main__":
    main()
