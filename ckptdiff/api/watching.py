"""`snapshot`: what tells, without opening a file, that a scheme appeared or changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ckptdiff.api.common import StrPath
from ckptdiff.errors import RootError
from ckptdiff.formats.discovery import find_checkpoints
from ckptdiff.formats.manifests import MANIFEST_DIR

# One file: its path below the scheme, and what stat tells of it.
Mark = tuple[str, int, int, int, int]


def snapshot(root: StrPath = ".") -> Mapping[str, tuple[Mark, ...]]:
    """scheme id -> the names, sizes and times of its files, for comparing with a later one.

    Raises `RootError` when `root` is no directory any more.
    """
    path = Path(root)
    if not path.is_dir():
        raise RootError(f"{root} is not there, or no directory", "Check the path.")
    return {id: tuple(sorted(_marks(here))) for id, here in find_checkpoints(path).checkpoints}


def _marks(path: Path) -> Iterator[Mark]:
    """The files of one checkpoint and of its own folders, not of checkpoints below it."""
    for folder in (path, path / MANIFEST_DIR):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    status = entry.stat()
                    if not entry.is_dir():
                        name = f"{folder.name}/{entry.name}"
                        times = status.st_mtime_ns, status.st_ctime_ns
                        yield name, status.st_size, status.st_ino, *times
        except OSError:
            continue  # not there, or it vanished in between: the next look will see that
