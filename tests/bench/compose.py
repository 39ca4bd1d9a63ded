"""Composing a scheme against `cp` of the same bytes, in one run, and its memory.

    python tests/bench/compose.py [--gb 2] [--dir DIR]

Prints what, ours, rival, ratio, target; nothing is asserted. A Llama-like base, an FP8 export of
all its layers and a manifest that selects half of them, the weights as its closed form has them.
Data is in the page cache, and both sides end with the file on disk (`fsync`). Times are taken
A B A B; the smallest of each counts. Ratios are speeds: 0.8 is four fifths of what `cp` does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import build
from bench.check import peak
from requantising import requantise, rows_of

import ckptdiff
from ckptdiff.api.composing import Planned
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs import proving
from ckptdiff.jobs.copying import write_shards
from ckptdiff.quant.dialects import Dialect

HIDDEN = 2048
CPU = Dialect("BF16", "cpu")


def layer(number: int) -> dict[str, tuple[int, int]]:
    """The linears of one layer: 42 million weights."""
    name = f"model.layers.{number}"
    found = {f"{name}.self_attn.{x}_proj": (HIDDEN, HIDDEN) for x in "qkvo"}
    found |= {f"{name}.mlp.{x}_proj": (2 * HIDDEN, HIDDEN) for x in ("gate", "up")}
    return found | {f"{name}.mlp.down_proj": (HIDDEN, 2 * HIDDEN)}


def write(folder: Path, layers: int) -> tuple[Path, Path, Path]:
    """(base, donor with all layers, scheme that selects half): the scheme has no weights."""
    rng = np.random.default_rng(0)
    base: dict[str, build.Spec] = {}
    donor: dict[str, build.Spec] = {}
    for number in range(layers):
        for name, shape in layer(number).items():
            weight = rng.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)
            packed = requantise("fp8", rows_of(weight), CPU)
            key = f"{name}.weight"
            base[key] = build.Spec("BF16", shape, "", weight.tobytes())
            donor[key] = build.Spec("F8_E4M3", shape, "", packed.codes.tobytes())
            scale = packed.scales.weight_scale.tobytes()
            donor[f"{name}.weight_scale"] = build.Spec("F32", (), "", scale)
            donor[f"{name}.input_scale"] = build.Spec("F32", (), "", scale)
        norm = f"model.layers.{number}.input_layernorm.weight"
        base[norm] = donor[norm] = build.Spec("BF16", (HIDDEN,), norm)
    embedding = build.Spec("BF16", (32_000, HIDDEN), "", bytes(2 * 32_000 * HIDDEN))
    base["model.embed_tokens.weight"] = donor["model.embed_tokens.weight"] = embedding
    (folder / "base").mkdir()
    build.write_weights(folder / "base", base)
    build.write_json(folder / "base" / "config.json", build.config(layers))
    ranking = build.recipes(layers)
    root = folder / "quantized"
    whole = build.write_scheme(
        root / "fp8_top100",
        donor,
        manifest=build.coverage_manifest("fp8_top100", 100, ranking),
        layers=layers,
    )
    half = root / "fp8_top50"
    shutil.copytree(whole, half, ignore=shutil.ignore_patterns("*.safetensors", "layer-*"))
    build.write_json(
        half / "layer-sensitivity" / "fp8_top50_coverage_from_baseline.json",
        build.coverage_manifest("fp8_top50", 50, ranking),
    )
    return folder / "base", whole, half


def wall(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def line(what: str, ours: str, rival: str, ratio: float, target: float, met: bool) -> None:
    shown = "met" if met else "NOT MET"
    print(f"{what:<58}{ours:>12}{rival:>12}{ratio:>9.2f}{target:>9.2f}  {shown}")


def speeds(folder: Path, planned: Planned, repeats: int) -> None:
    (target,) = (Path(plan.target) for plan in planned.report.plans)
    composition = planned.jobs[0].composition
    assert composition is not None
    size = composition.nbytes
    ours, source, copy = folder / "ours", folder / "source", folder / "copy"

    def clean(path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        os.sync()  # nobody pays for what the other left to be written

    def compose(path: Path) -> None:
        options = {"jobs": None, "sink": silent, "cancel": CancelToken()}
        write_shards(path, composition.shards, CPU, **options)  # type: ignore[arg-type]

    def prove() -> None:
        for donor, keys in composition.donated:
            proving.prove(donor, composition.base, keys=keys, sink=silent, cancel=CancelToken())

    def rival() -> None:
        target = copy / "model.safetensors"
        subprocess.run(["cp", source / "model.safetensors", target], check=True)
        subprocess.run(["sync", target], check=True)

    clean(source)
    compose(source)
    prove()
    times: dict[str, list[float]] = {"write": [], "cp": [], "prove": [], "whole": []}
    for _ in range(repeats):
        clean(ours)
        times["write"].append(wall(lambda: compose(ours)))
        times["prove"].append(wall(prove))
        clean(copy)
        times["cp"].append(wall(rival))
        shutil.rmtree(target, ignore_errors=True)
        os.sync()
        times["whole"].append(wall(lambda: ckptdiff.execute(planned, cache=False)))
    best = {name: min(values) for name, values in times.items()}
    what = f"write {size / 1e9:.2f} GB, hashed on the way ({size / 1e9 / best['write']:.2f} GB/s)"
    ratio = best["cp"] / best["write"]
    line(what, f"{best['write']:.2f} s", f"{best['cp']:.2f} s", ratio, 0.8, ratio >= 0.8)
    both = best["write"] + best["prove"]
    ratio = best["cp"] / both
    what = f"with the donor's modules proven first ({best['prove']:.2f} s)"
    line(what, f"{both:.2f} s", f"{best['cp']:.2f} s", ratio, 0.4, ratio >= 0.4)
    ratio = best["cp"] / best["whole"]
    what = "the whole command: hash, prove, write, check --deep, rename"
    line(what, f"{best['whole']:.2f} s", f"{best['cp']:.2f} s", ratio, 0.8, ratio >= 0.8)
    for path in (ours, source, copy, target):
        shutil.rmtree(path)


def memory(base: Path, donor: Path, scheme: Path, out: Path) -> None:
    plan = f"ckptdiff.plan_reexport([{str(scheme)!r}], base={str(base)!r}, "
    plan += f"donors=[{str(donor)!r}], out={str(out)!r})"
    script = f"import ckptdiff; report = ckptdiff.execute({plan}); assert not report.failed, report"
    used = peak(script) - peak("pass")
    what = "peak memory of the whole command above the interpreter"
    line(what, f"{used:.0f} MiB", "150 MiB", used / 150, 1, used <= 150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=2.0, help="size of the base")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to put the data (default: a temporary one)")
    options = parser.parse_args()
    print(f"{'what':<58}{'ours':>12}{'rival':>12}{'ratio':>9}{'target':>9}")
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="ckptdiff-bench-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / ".cache")
        per_layer = 2 * sum(a * b for a, b in layer(0).values())
        base, donor, scheme = write(folder, max(2, round(options.gb * 1e9 / per_layer)))
        planned = ckptdiff.plan_reexport(
            [scheme], engine="compose", base=base, donors=[donor], out=folder / "planned"
        )
        assert planned.report.possible, planned.report.plans[0]
        speeds(folder, planned, options.repeats)
        memory(base, donor, scheme, folder / "again")


if __name__ == "__main__":
    main()
