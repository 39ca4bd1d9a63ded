"""What several verbs need: the tool's own name, settings, and how a sweep is read."""

from __future__ import annotations

import os
from pathlib import Path

from ckptdiff import __version__
from ckptdiff.errors import SettingsError, UsageError
from ckptdiff.events import CancelToken, Sink
from ckptdiff.formats.discovery import holds_checkpoint
from ckptdiff.formats.settings import find_settings, read_settings
from ckptdiff.jobs.reading import read_sweep
from ckptdiff.records.report import BaseRow, Tool
from ckptdiff.records.settings import Settings
from ckptdiff.records.sweep import Sweep

StrPath = str | os.PathLike[str]


def load_settings(root: StrPath, config: StrPath | None = None) -> Settings:
    """The settings that apply to `root`: `config`, or ckptdiff.toml from here upwards.

    Raises `SettingsError` for a file that cannot be read or understood.
    """
    if config is not None:
        return read_settings(Path(config))
    try:
        path = find_settings(Path.cwd(), Path(root))
    except OSError as error:
        raise SettingsError(
            f"the working directory cannot be found: {error.strerror}",
            "Change to a directory that exists.",
        ) from error
    return Settings() if path is None else read_settings(path)


def refuse_inside(path: StrPath) -> None:
    """Raise `UsageError` when `path` lies in a checkpoint: those are never written to."""
    target = Path(path).resolve()
    for above in target.parents:
        if holds_checkpoint(above):
            raise UsageError(
                f"{path} lies inside the checkpoint {above}, which is never written to",
                "Name a file outside of it.",
            )


def read(root: StrPath, base: StrPath | None, sink: Sink, cancel: CancelToken | None) -> Sweep:
    chosen = None if base is None else Path(base)
    return read_sweep(Path(root), base=chosen, sink=sink, cancel=cancel or CancelToken())


def tool() -> Tool:
    return Tool("ckptdiff", __version__)


def base_row(sweep: Sweep) -> BaseRow | None:
    return None if sweep.base is None else BaseRow(sweep.base.checkpoint.id, sweep.base.found_by)
