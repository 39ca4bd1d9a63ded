"""stdout and files: results are written here and nowhere else."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ckptdiff.errors import UsageError

T = TypeVar("T")


def use_color() -> bool:
    """Whether stdout is a terminal and nobody asked for plain text (NO_COLOR)."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def write_stdout(data: bytes) -> None:
    """Write a whole result to stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def format_of(path: Path, formats: Mapping[str, T]) -> T:
    """The format that the suffix of `path` picks. Raises `UsageError` for an unknown one."""
    try:
        return formats[path.suffix.lower()]
    except KeyError:
        known = ", ".join(formats)
        raise UsageError(
            f"{path}: no format goes with the suffix {path.suffix!r}", f"Known are {known}."
        ) from None


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all. Raises `UsageError` when that fails."""
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/stdout cannot be replaced
            path.write_bytes(data)
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", "Name another file with -o."
        ) from error
