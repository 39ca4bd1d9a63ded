"""Everything that was learned about a sweep, ready to be judged by rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptdiff.records.against_base import AgainstBase
from ckptdiff.records.checkpoint import BaselineManifest, Checkpoint, QuantConfig, Tensor, Unread
from ckptdiff.records.coverage import Coverage
from ckptdiff.records.digests import Flaws
from ckptdiff.records.layout import Layout, Scale, Suffix
from ckptdiff.records.proof import Proof


@dataclass(frozen=True, slots=True)
class SchemeEvidence:
    """One scheme: what it holds, covers and hashes to.

    `tensors` maps a key to (name, tensor, shard), `layouts` a quantized module's key to what
    its tensors show. `digests` and `flaws` are by tensor name, `scales` by module name and suffix.
    `fingerprint` is None when tensors were not hashed, or not all of them could be.
    """

    checkpoint: Checkpoint
    coverage: Coverage
    quantization: QuantConfig | None
    baseline: BaselineManifest | None
    family: str
    tensors: Mapping[str, tuple[str, Tensor, str]] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    digests: Mapping[str, bytes] = field(default_factory=dict)
    flaws: Mapping[str, Flaws] = field(default_factory=dict)
    scales: Mapping[str, Mapping[Suffix, Scale]] = field(default_factory=dict)
    fingerprint: str | None = None
    unread: tuple[Unread, ...] = ()

    @property
    def id(self) -> str:
        return self.checkpoint.id

    @property
    def algorithm(self) -> str | None:
        return self.quantization.algorithm if self.quantization else None

    @property
    def foreign(self) -> str | None:
        """The quantization method of another exporter than ModelOpt, None for ModelOpt's."""
        method = self.quantization.method if self.quantization else ""
        return method if method not in ("", "modelopt") else None

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
    """The whole sweep. `mislabelled` maps a scheme to the one whose set it carries,
    `views` a scheme to the base as it is held against it, where the two hold experts otherwise,
    `against_base` a scheme to its comparison with the base, `proofs` a scheme to what
    recomputing its quantized modules showed, by key; it is empty unless that was asked for."""

    root: str
    schemes: tuple[SchemeEvidence, ...]
    base: SchemeEvidence | None
    hashed: bool
    identity: tuple[IdentityGroup, ...] = ()
    mislabelled: Mapping[str, str] = field(default_factory=dict)
    against_base: Mapping[str, AgainstBase] = field(default_factory=dict)
    proofs: Mapping[str, Mapping[str, Proof]] = field(default_factory=dict)
    views: Mapping[str, SchemeEvidence] = field(default_factory=dict)

    @property
    def bases(self) -> tuple[SchemeEvidence, ...]:
        """The base in every way in which a scheme is held against it."""
        found = (self.base_of(scheme) for scheme in self.schemes)
        return tuple({id(base): base for base in found if base is not None}.values())

    def base_of(self, scheme: SchemeEvidence) -> SchemeEvidence | None:
        """The base as a scheme is held against it."""
        return self.views.get(scheme.id, self.base)
