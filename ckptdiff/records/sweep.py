"""A sweep: the checkpoints below one root, the base they come from, what was passed over."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdiff.records.checkpoint import Checkpoint, Unread


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file or directory that was seen and deliberately not judged."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Base:
    """The full-precision checkpoint that the schemes were made from.

    `found_by` is "--base", "ckptdiff.toml" or "search".
    """

    checkpoint: Checkpoint
    found_by: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """The schemes of ROOT, sorted by id. `base_note` says why there is no base."""

    root: str
    schemes: tuple[Checkpoint, ...]
    base: Base | None = None
    base_note: str = ""
    passed_over: tuple[PassedOver, ...] = ()
    unread: tuple[Unread, ...] = ()
