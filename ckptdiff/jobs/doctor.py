"""What this machine and this installation can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from ckptdiff.records.doctor import Capability
from ckptdiff.sources.cache import Cache


@dataclass(frozen=True, slots=True)
class _Part:
    """A package, what it is for, and the extra that brings it ("" for the core)."""

    package: str
    enables: str
    extra: str = ""


_PARTS = (
    _Part("click", "the command line"),
    _Part("msgspec", "headers and JSON"),
    _Part("numpy", "values of tensors"),
    _Part("ml_dtypes", "BF16 and FP8 values"),
    _Part("xxhash", "digests"),
    _Part("textual", "the app for a terminal"),
    _Part("textual-serve", "the app in a browser", "serve"),
    _Part("torch", "probes and re-export", "probe"),
    _Part("transformers", "models for probes and re-export", "probe"),
    _Part("accelerate", "models over several devices", "probe"),
    _Part("pillow", "image prompts", "probe"),
    _Part("nvidia-modelopt", "re-export through ModelOpt", "modelopt"),
    _Part("requests", "ModelOpt imports it", "modelopt"),
    _Part("numba", "a faster diff of large checkpoints", "fast"),
)
_SECONDS = 60
_LIST_DEVICES = (
    "import torch\nfor n in range(torch.cuda.device_count()): print(torch.cuda.get_device_name(n))"
)


def capabilities() -> tuple[Capability, ...]:
    """Every part with its version, None where it is not installed."""
    return tuple(
        Capability(
            name=part.package,
            version=_version(part.package),
            enables=part.enables,
            install=f"pip install 'ckptdiff[{part.extra}]'" if part.extra else "",
        )
        for part in _PARTS
    )


def devices() -> tuple[str, ...]:
    """Names of the GPUs that torch sees, asked for in a child: torch is never imported here.

    () when there are none, when torch is not installed, or when it does not answer.
    """
    if _version("torch") is None:
        return ()
    try:
        # -P and a directory of our own: no module of the working directory is imported.
        with tempfile.TemporaryDirectory(prefix="ckptdiff-") as directory:
            child = subprocess.run(
                [sys.executable, "-P", "-c", _LIST_DEVICES],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(child.stdout.splitlines()) if child.returncode == 0 else ()


def cache_size() -> int:
    """Bytes of the file that remembers digests, 0 when there is none."""
    try:
        return Cache().path.stat().st_size
    except OSError:
        return 0


def processors() -> int:
    return os.cpu_count() or 1


def python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
