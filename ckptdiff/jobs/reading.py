"""Reads a sweep from disk: which checkpoints, what they say, which base they come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from ckptdiff.analysis.coverage import is_full_precision
from ckptdiff.analysis.ordering import natural
from ckptdiff.errors import BaseError, RootError
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.formats.discovery import find_bases, find_checkpoints, model_identity
from ckptdiff.records.checkpoint import Checkpoint
from ckptdiff.records.sweep import Base, Sweep

# Defects that leave every tensor of a base where it is looked for.
_HARMLESS = ("gap", "not-indexed", "stray-shard", "total-size")


def read_sweep(
    root: Path,
    *,
    base: Path | None = None,
    base_found_by: str = "--base",
    sink: Sink,
    cancel: CancelToken,
) -> Sweep:
    """The sweep at `root`: documents and headers, no tensor data.

    Raises `RootError` when `root` is no directory or holds no checkpoint, `BaseError` when
    a named `base` cannot serve as one, `Cancelled` when asked to stop.
    """
    _require_directory(root)
    found = find_checkpoints(root)
    if not found.checkpoints and not found.unread:
        raise RootError(
            f"{root} holds no checkpoint",
            "A checkpoint is a directory with *.safetensors, an index, hf_quant_config.json "
            "or a coverage manifest; name the directory above them.",
        )
    given = None
    if base is not None:
        given = Base(_read_base(base, root), base_found_by)
    checkpoints = []
    sink(Started("read", len(found.checkpoints), "checkpoints"))
    for id, path in found.checkpoints:
        cancel.raise_if_cancelled()
        if base is None or not _same_directory(path, base):
            checkpoints.append(read_checkpoint(path, id))
        sink(Advanced("read", 1, id))
    sink(Finished("read"))
    chosen, note = (given, "") if given else _search(root, checkpoints)
    schemes = [c for c in checkpoints if chosen is None or c.path != chosen.checkpoint.path]
    return Sweep(
        root=str(root),
        schemes=tuple(sorted(schemes, key=lambda c: natural(c.id))),
        base=chosen,
        base_note=note,
        passed_over=tuple(found.passed_over),
        unread=tuple(found.unread),
    )


def read_one(path: Path) -> Checkpoint:
    """The checkpoint at `path` itself. Raises `RootError` when there is none."""
    _require_directory(path)
    checkpoint = read_checkpoint(path, ".")
    if not checkpoint.shards and not checkpoint.unread:
        named = [d for d in checkpoint.defects if d.kind in ("missing-shard", "escaping-path")]
        if named:
            raise RootError(
                f"{path} holds none of the files that its index names: "
                f"{named[0].actual or named[0].file} {named[0].message}",
                f"`ckptdiff check {quote(str(path))}` says what is wrong with it.",
            )
        raise RootError(f"{path} holds no safetensors", "Name the directory of one checkpoint.")
    return checkpoint


def _require_directory(root: Path) -> None:
    try:
        root.stat()
    except FileNotFoundError:
        what = "is a link to what does not exist" if root.is_symlink() else "does not exist"
        raise RootError(f"{root} {what}", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise RootError(f"{root} cannot be opened: {error}", "Check the path.") from error
    if not root.is_dir():
        raise RootError(
            f"{root} is a file", "Name the directory that holds it, or the sweep above."
        )


def _read_base(base: Path, root: Path) -> Checkpoint:
    try:
        _require_directory(base)
    except RootError as error:
        raise BaseError(f"the base {error.message}", error.next_step) from None
    checkpoint = read_checkpoint(base, relative_id(base, root))
    if broken := _broken(checkpoint):
        raise BaseError(
            f"the base {base} cannot be used: {broken}", f"Try `ckptdiff check {quote(str(base))}`."
        )
    if not is_full_precision(checkpoint):
        raise BaseError(
            f"the base {base} is quantized itself",
            "Name the full-precision checkpoint that the schemes were made from.",
        )
    return checkpoint


def _broken(checkpoint: Checkpoint) -> str | None:
    """What keeps a checkpoint from serving as the base; its faults would be blamed on others."""
    for unread in (*checkpoint.unread, *(shard.unread for shard in checkpoint.shards)):
        if unread is not None:
            return f"{unread.path} cannot be read ({unread.reason})"
    for defect in checkpoint.all_defects:
        if defect.kind not in _HARMLESS:
            return f"{defect.file}: {defect.message}"
    return None


def _search(root: Path, checkpoints: Sequence[Checkpoint]) -> tuple[Base | None, str]:
    """The base as the contract finds it, or None and what was seen instead."""
    inside: list[Checkpoint] = []
    rest: list[Checkpoint] = []
    for checkpoint in checkpoints:
        # A broken one stays among the schemes, so that somebody hears what is wrong with it.
        usable = is_full_precision(checkpoint) and not _broken(checkpoint)
        (inside if usable else rest).append(checkpoint)
    if not rest:
        return None, "no quantized scheme asks for a base"
    identities = {model_identity(c.config) for c in rest if c.config}
    if len(identities) != 1:
        seen = f"{len(identities)} different models" if identities else "no readable config.json"
        return None, f"the schemes have {seen}"
    identity = identities.pop()
    inside = [c for c in inside if c.config and model_identity(c.config) == identity]
    search = find_bases(root.resolve(), identity)
    outside = [
        path
        for path in search.candidates
        if not any(_same_directory(Path(c.path), path) for c in inside)
    ]
    if len(inside) + len(outside) > 1:
        # Configs alone made them candidates; what the headers say decides.
        schemes = [Path(c.path) for c in rest]
        outside = [p for p in outside if not any(_same_directory(s, p) for s in schemes)]
        outside = [p for p in outside if is_full_precision(read_checkpoint(p, str(p)))]
    if len(inside) + len(outside) != 1:
        seen_at = [c.id for c in inside] + [relative_id(path, root) for path in outside]
        if len(seen_at) > 4:
            seen_at = [*seen_at[:4], f"{len(seen_at) - 4} more"]
        if not seen_at:
            return None, "no full-precision checkpoint of this model was found; name one by --base"
        return None, f"several could be the base ({', '.join(seen_at)}); name one by --base"
    if not search.complete:
        return None, "too many directories around ROOT to search; name the base by --base"
    if inside:
        return Base(inside[0], "search"), ""
    checkpoint = read_checkpoint(outside[0], relative_id(outside[0], root))
    if broken := _broken(checkpoint):
        return None, f"{checkpoint.id} could be the base, but {broken}"
    if not is_full_precision(checkpoint):
        return None, f"{checkpoint.id} could be the base, but is quantized"
    return Base(checkpoint, "search"), ""


def relative_id(path: Path, root: Path) -> str:
    """`path` relative to `root`, with forward slashes: the id of a checkpoint."""
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def _same_directory(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
