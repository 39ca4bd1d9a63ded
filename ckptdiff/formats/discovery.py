"""Finds the checkpoints below a root, and candidates for the base around it.

Looks at names and configs only: no header and no tensor is read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ckptdiff.formats.checkpoint import (
    WEIGHTS_SUFFIX,
    is_checkpoint,
    not_judged,
    read_identity,
)
from ckptdiff.formats.configs import CONFIG_NAME
from ckptdiff.formats.manifests import MANIFEST_DIR
from ckptdiff.records.checkpoint import ModelConfig, Unread
from ckptdiff.records.sweep import PassedOver
from ckptdiff.sources.listing import list_directory
from ckptdiff.sources.local import Unreadable, reason_of

# Deep enough for every layout seen; a bound, because links can make a tree endless.
MAX_DEPTH = 16
# Siblings of ROOT may be somebody's whole disk.
MAX_VISITED = 5_000

_BROKEN = re.compile(r"\.broken-\d+$")


@dataclass(slots=True)
class Found:
    """What a walk below ROOT came across; ids are relative to ROOT."""

    checkpoints: list[tuple[str, Path]] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def find_checkpoints(root: Path) -> Found:
    """The checkpoints at and below `root`, sorted by id."""
    found = Found()
    _walk(root, ".", (), False, found)
    found.checkpoints.sort()
    found.passed_over.sort(key=lambda item: item.path)
    return found


def _walk(
    path: Path, id: str, above: tuple[tuple[int, int], ...], linked: bool, found: Found
) -> None:
    try:
        here = path.stat()
        entries = list_directory(path)
    except (OSError, Unreadable) as error:
        reason = error.reason if isinstance(error, Unreadable) else str(error.strerror)
        found.unread.append(Unread(id, reason))
        return
    node = (here.st_dev, here.st_ino)
    if node in above:
        found.passed_over.append(PassedOver(id, "links back to a directory above it"))
        return
    if len(above) > MAX_DEPTH:
        found.unread.append(Unread(id, f"lies more than {MAX_DEPTH} levels down"))
        return
    checkpoint = is_checkpoint(path, [entry.name for entry in entries])
    if checkpoint:
        found.checkpoints.append((id, path))
    for entry in entries:
        below = entry.name if id == "." else f"{id}/{entry.name}"
        if entry.is_directory:
            if hidden := _directory_passed_over(entry.name):
                found.passed_over.append(PassedOver(below, hidden))
            elif entry.linked and linked:
                # One link is a layout, a chain of them a maze.
                found.passed_over.append(PassedOver(below, "a link inside a linked directory"))
            elif not checkpoint or entry.name != MANIFEST_DIR:
                _walk(path / entry.name, below, (*above, node), linked or entry.linked, found)
        elif other := not_judged(entry.name):
            found.passed_over.append(PassedOver(below, other))
        elif entry.linked and not checkpoint and (lost := _leads_nowhere(path / entry.name)):
            # It may have been a scheme, on a disk that is not there now.
            found.unread.append(Unread(below, lost))


def _leads_nowhere(link: Path) -> str | None:
    try:
        link.stat()
    except OSError as error:
        return reason_of(error)
    return None


def _directory_passed_over(name: str) -> str | None:
    if name.startswith("."):
        return "hidden"
    if _BROKEN.search(name):
        return "set aside by a repair"
    return None


def model_identity(config: ModelConfig) -> tuple[object, ...]:
    """What a base must have in common with its schemes."""
    return (config.architectures, config.hidden_size, config.num_layers)


@dataclass(frozen=True, slots=True)
class BaseSearch:
    """Full-precision checkpoints of the wanted model, and whether all places were seen."""

    candidates: tuple[Path, ...]
    complete: bool


def find_bases(root: Path, identity: tuple[object, ...]) -> BaseSearch:
    """Full-precision checkpoints with `identity` in ROOT, its siblings, their children and
    their children's children, by configs alone, each real directory once."""
    candidates: dict[str, Path] = {}
    for visited, path in enumerate(_around(root)):
        if visited >= MAX_VISITED:
            return BaseSearch(tuple(candidates.values()), complete=False)
        if _is_base(path, identity):
            candidates.setdefault(os.path.realpath(path), path)
    return BaseSearch(tuple(candidates.values()), complete=True)


def _around(root: Path) -> Iterator[Path]:
    yield root
    yield from _directories(root)
    for sibling in _directories(root.parent):
        if sibling.name == root.name:
            continue
        yield sibling
        for child in _directories(sibling):
            yield child
            yield from _directories(child)


def _directories(path: Path) -> tuple[Path, ...]:
    try:
        entries = list_directory(path)
    except Unreadable:
        return ()  # a place that cannot be searched holds no base that could be read
    return tuple(
        path / entry.name
        for entry in entries
        if entry.is_directory and not _directory_passed_over(entry.name)
    )


def _is_base(path: Path, identity: tuple[object, ...]) -> bool:
    try:
        names = [entry.name for entry in list_directory(path)]
    except Unreadable:
        return False
    weights = any(name.endswith(WEIGHTS_SUFFIX) and not not_judged(name) for name in names)
    if CONFIG_NAME not in names or not weights:
        return False
    found = read_identity(path)
    if found is None:
        return False
    config, quant_config = found
    unquantized = config.quantization is None and quant_config is None
    return unquantized and model_identity(config) == identity


def holds_checkpoint(path: Path) -> bool:
    """Whether a directory is a checkpoint itself; False where it cannot be listed."""
    try:
        return is_checkpoint(path, [entry.name for entry in list_directory(path)])
    except Unreadable:
        return False
