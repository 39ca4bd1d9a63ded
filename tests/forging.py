"""Healthy schemes to be broken, and what somebody may put where a file should be."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00002.safetensors"
DEEP = b"[" * 200_000 + b"]" * 200_000
DIGITS = b"9" * 5_000


def write_one(path: Path, shards: int = 1, salt: str = "") -> Path:
    """A healthy scheme; `salt` gives it weights of its own."""
    recipes = build.recipes(1)
    quantized = [module for recipe in recipes[:2] for module in build.members(recipe)]
    tensors = build.fp8_tensors(quantized, 1)
    if salt:
        tensors["model.norm.weight"] = build.Spec("BF16", (build.HIDDEN,), f"norm {salt}")
    return build.write_scheme(
        path,
        tensors,
        manifest=build.coverage_manifest(path.name, 50, recipes),
        baseline=build.baseline_manifest(recipes),
        shards=shards,
        layers=1,
    )


def coverage_of(scheme: Path) -> Path:
    return scheme / f"layer-sensitivity/{scheme.name}_coverage_from_baseline.json"


def baseline_of(scheme: Path) -> Path:
    return scheme / f"layer-sensitivity/{build.BASELINE}_quant_manifest.json"


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# What is no regular file


def socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFSOCK | 0o600)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")
