"""Everything that was learned about a sweep, ready to be judged by rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptdiff.records.checkpoint import BaselineManifest, Checkpoint, Unread
from ckptdiff.records.coverage import Coverage
from ckptdiff.records.sweep import Base


@dataclass(frozen=True, slots=True)
class SchemeEvidence:
    """One scheme: what it holds, covers and hashes to.

    `fingerprint` is None when tensors were not hashed, or not all of them could be.
    """

    checkpoint: Checkpoint
    coverage: Coverage
    algorithm: str | None
    producer: str
    baseline: BaselineManifest | None
    family: str
    fingerprint: str | None = None
    unread: tuple[Unread, ...] = ()

    @property
    def id(self) -> str:
        return self.checkpoint.id

    @property
    def has_manifest(self) -> bool:
        return self.coverage.selected is not None

    @property
    def is_baseline(self) -> bool:
        """The scheme that a search produced: it ranks the layers and declares no subset."""
        return self.baseline is not None and not self.checkpoint.coverage


@dataclass(frozen=True, slots=True)
class IdentityGroup:
    """Schemes whose tensors are the same, byte for byte, whatever their files.

    `conflicting`: their declared sets differ, so at most one can be what it says.
    `reference` is the member that keeps its claim to the weights.
    """

    letter: str
    fingerprint: str
    schemes: tuple[str, ...]
    nbytes: int
    conflicting: bool
    reference: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The whole sweep. `mislabelled` maps a scheme to the one whose set it carries."""

    root: str
    schemes: tuple[SchemeEvidence, ...]
    base: Base | None
    hashed: bool
    identity: tuple[IdentityGroup, ...] = ()
    mislabelled: Mapping[str, str] = field(default_factory=dict)
