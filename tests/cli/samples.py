"""The sample sweep, and `reexport` on it."""

from __future__ import annotations

from pathlib import Path

from command import Result, run

SAMPLES = Path(__file__).parents[2] / "samples"
BASE = SAMPLES / "base"
SWEEP = SAMPLES / "sweep"
NAME = "fp8_autoquant_all_layers_top{}_captions"
BASELINE = SWEEP / "fp8_autoquant_all_layers_fp8_captions"
WHOLE = SWEEP / NAME.format(100)
PERCENTS = (10, 30, 50, 100)
PROVENANCE = "layer-sensitivity/ckptdiff-provenance.json"


def reexport(*arguments: object, **options: object) -> Result:
    given = ["--engine", "compose", "--base", str(BASE)]
    return run("reexport", *map(str, arguments), *given, **options)  # type: ignore[arg-type]


def files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}
