"""stdout and files: results are written here and nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from ckptdiff import api
from ckptdiff.cli.console import detach
from ckptdiff.errors import UsageError

if TYPE_CHECKING:
    from ckptdiff.api.rendering import Report

T = TypeVar("T")


def use_color() -> bool:
    """Whether stdout is a terminal and nobody asked for plain text (NO_COLOR)."""
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def write_stdout(data: bytes) -> None:
    """Write a whole result to stdout.

    Raises `UsageError` when that fails, and leaves as a shell would (141) when whoever read
    our output has seen enough: 1 would mean findings.
    """
    if sys.stdout is None:
        raise UsageError("stdout is closed", "Redirect it to a file or to /dev/null.")
    try:
        sys.stdout.flush()
        left = memoryview(data)
        while left:  # unbuffered (PYTHONUNBUFFERED), it may take a part and say so
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()
    except OSError as error:
        detach(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(141) from error
        raise UsageError(
            f"stdout cannot be written: {error.strerror}", "Make room, or redirect it elsewhere."
        ) from error


def show(report: Report, as_json: bool) -> None:
    """Write a report to stdout, as JSON or as text. Raises as `write_stdout` does."""
    write_stdout(api.render(report, "json" if as_json else "text", color=use_color()))


def finish(report: Report, as_json: bool) -> NoReturn:
    """Show a report, and leave with its exit code."""
    show(report, as_json)
    raise click.exceptions.Exit(api.exit_code(report))


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
    api.write_file(path, data)
