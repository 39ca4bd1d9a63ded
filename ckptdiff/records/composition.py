"""A checkpoint that is put together from tensors of others: what goes where, before it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName, Suffix


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of a tensor as they are."""

    shard: Shard
    name: str

    @property
    def tensor(self) -> Tensor:
        return self.shard.tensors[self.name]


@dataclass(frozen=True, slots=True)
class Cast:
    """The values of a tensor in the float dtype of its piece, rounded to nearest even."""

    shard: Shard
    name: str


@dataclass(frozen=True, slots=True)
class Made:
    """A part of a quantized module, made from base by the closed form of its layout.

    `group` are the weights of base that share the module's scale, its own first. `part` is
    None for the weight itself.
    """

    key: str
    layout: LayoutName
    part: Suffix | None
    group: tuple[Stored, ...]


Source = Stored | Cast | Made


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of the new checkpoint and where its bytes come from."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    source: Source


@dataclass(frozen=True, slots=True)
class OutputShard:
    """One safetensors file: its header, padded, and its pieces in the order of their bytes."""

    name: str
    header: bytes
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(piece.nbytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Composition:
    """All files of the new checkpoint.

    `documents` are written as given and `copies` copied from other paths, both by their names
    in the checkpoint. `donated` are the module keys whose weight each donor supplies: what has
    to be proven before anything is written. `host` is the dtype of unquantized weights.
    """

    base: SchemeEvidence
    shards: tuple[OutputShard, ...]
    documents: Mapping[str, bytes] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    donated: tuple[tuple[SchemeEvidence, frozenset[str]], ...] = ()
    host: str = "BF16"

    @property
    def nbytes(self) -> int:
        """Bytes to write, copies left out."""
        return sum(s.nbytes for s in self.shards) + sum(map(len, self.documents.values()))
