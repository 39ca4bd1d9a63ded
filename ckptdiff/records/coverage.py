"""Which modules a scheme says are quantized, and which ones are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Module:
    """One module that owns a weight: what its tensors on disk say.

    `elements` counts the unpacked weight, `bits` is what AutoQuant counts per element
    (16 for any unquantized one), `packable` is False for convolutions.
    """

    key: str
    name: str
    weight: str
    dtype: str
    shard: str
    elements: int
    bits: float
    quantized: bool
    packable: bool


@dataclass(frozen=True, slots=True)
class Declared:
    """What a scheme claims. Sets hold module keys, counts of recipes are as listed.

    `percent` comes from the manifest, else from the `topNN` token of the name. Without
    a coverage manifest `selected` and `dropped` are None: only a share is declared.
    `unknown` are recipes that name nothing in the checkpoint.
    """

    percent: float | None
    selected: frozenset[str] | None = None
    dropped: frozenset[str] | None = None
    recipes_total: int | None = None
    unknown: tuple[str, ...] = ()
    manifest: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Declared against actual for one scheme.

    `scope` are the modules that could have been quantized: those of the ranking that an
    export can pack, or every linear weight when there is no ranking. `complete` is False
    when a header could not be read, so that an absent module may be there after all.
    """

    modules: Mapping[str, Module]
    scope: frozenset[str]
    quantized: frozenset[str]
    effective_bits: float | None
    declared: Declared | None
    complete: bool

    @property
    def selected(self) -> frozenset[str] | None:
        """The declared set, None when no manifest declares one."""
        return self.declared.selected if self.declared else None

    @property
    def not_quantized(self) -> frozenset[str]:
        """Modules that the manifest selects and that are unquantized on disk."""
        return (self.selected or frozenset()) - self.quantized

    @property
    def not_selected(self) -> frozenset[str]:
        """Modules that are quantized on disk and that the manifest does not select."""
        return frozenset() if self.selected is None else self.quantized - self.selected

    @property
    def agrees(self) -> bool:
        """Whether there is a declared set and the tensors are exactly that."""
        return self.selected is not None and self.selected == self.quantized
