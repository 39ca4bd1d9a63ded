"""What lies in a directory, without opening any of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ckptdiff.sources.local import Unreadable, reason_of
from ckptdiff.sources.trace import note, note_entry


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory. `linked` directories are reached through a symlink."""

    name: str
    is_directory: bool
    linked: bool


def list_directory(path: Path) -> tuple[Entry, ...]:
    """The entries of `path`, sorted by name. Raises `Unreadable`."""
    try:
        # Asked before the listing: what is added meanwhile makes the note untrue, not the list.
        note(path, path.stat())
        with os.scandir(path) as entries:
            found = [Entry(e.name, _is_directory(e), e.is_symlink()) for e in entries]
    except OSError as error:
        note_entry(path)
        raise Unreadable(reason_of(error)) from error
    for entry in found:
        if entry.linked:  # where it leads to can change without a change of this directory
            note_entry(path / entry.name)
    return tuple(sorted(found, key=lambda entry: entry.name))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of symlinks is no directory; opening it tells the reason
        return False
