"""What one checkpoint directory holds, as read from its files without judging it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

DefectKind = Literal[
    "malformed",  # the header, index, config or manifest cannot be understood
    "truncated",  # the header promises more bytes than the file has
    "overlap",  # two tensors claim the same bytes
    "gap",  # bytes that belong to no tensor
    "missing-shard",  # the index names a file that is not there
    "absent-tensor",  # the index names a tensor that its shard does not hold
    "escaping-path",  # the index names a file outside the checkpoint
    "no-weights",  # there is nothing to load
    "twice",  # one tensor name in two shards
    "not-indexed",  # a tensor in an indexed shard that the index does not name
    "stray-shard",  # a shard that the index does not name
    "total-size",  # the index states another total size than the headers
    "two-readings",  # an index and a whole file, of which loaders take one or the other
    "mixed-prefixes",  # tensors of one model under different prefixes
]


# Defects behind which tensors are unknown.
HIDING: tuple[DefectKind, ...] = (
    "malformed",
    "truncated",
    "missing-shard",
    "escaping-path",
    "no-weights",
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header.

    `shape` is the logical shape, `data_offsets` the half-open byte range relative to
    the start of the data section, both exactly as the header has them.
    """

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def part(self) -> Part | None:
        """Of what it is a part; None, unless it is a `TensorPart`, which no header has."""
        return None

    @property
    def nbytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


@dataclass(frozen=True, slots=True)
class Part:
    """The matrix of one expert in a tensor `of` all of them: rows [first, …) of [E, O, I], or
    columns [first, …) of [E, I, O], where two of one row lie `pitch` = O elements apart."""

    of: str
    expert: int
    first: int
    pitch: int = 0

    @property
    def transposed(self) -> bool:
        return self.pitch > 0


@dataclass(frozen=True, slots=True)
class TensorPart(Tensor):
    """A matrix [rows, columns] that is a part of a tensor. `data_offsets` of a transposed one
    is the range that its elements are strewn over."""

    part: Part = field()

    @property
    def nbytes(self) -> int:
        span = self.data_offsets[1] - self.data_offsets[0]
        if not self.part.pitch or not span:
            return span
        rows, columns = self.shape
        return span * rows * columns // ((columns - 1) * self.part.pitch + rows)


@dataclass(frozen=True, slots=True)
class Defect:
    """Something wrong in one file. `offset` is a byte offset from the file's start."""

    kind: DefectKind
    message: str
    file: str
    offset: int | None = None
    tensor: str | None = None
    expected: str | None = None
    actual: str | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A file or directory that could not be looked at, and why: never "looked, fine"."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells whether a file is still the one that was read before (from fstat)."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed safetensors header. `data_start` is the absolute offset of the data."""

    data_start: int
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file. `header` is None when it could not be read or understood;
    `header_digest` is the xxh3_128 of its bytes. `view` has what is looked at in the place
    of the header's tensors: some of them in parts."""

    name: str
    path: str
    identity: FileIdentity | None = None
    header: Header | None = None
    defects: tuple[Defect, ...] = ()
    unread: Unread | None = None
    header_digest: bytes = b""
    view: Mapping[str, Tensor] | None = None

    @property
    def stored(self) -> Mapping[str, Tensor]:
        """The tensors of the file, each as it lies there."""
        return self.header.tensors if self.header else {}

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.stored if self.view is None else self.view


@dataclass(frozen=True, slots=True)
class Index:
    """`model.safetensors.index.json`: which shard holds which tensor, as it claims."""

    name: str
    weight_map: Mapping[str, str]
    total_size: int | None


@dataclass(frozen=True, slots=True, eq=False)  # one a file, told apart by identity
class QuantConfig:
    """A quantization config in one form, whichever of the two files it came from.

    `algorithm` is as ModelOpt spells it (None: unquantized or not said), `layers` the
    per-module algorithms of MIXED_PRECISION and `group_sizes` their group sizes, `method`
    the `quant_method` of config.json ("modelopt", "compressed-tensors", …).
    """

    source: str
    method: str
    producer: str
    algorithm: str | None
    kv_cache_algorithm: str | None = None
    group_size: int | None = None
    exclude: tuple[str, ...] = ()
    layers: Mapping[str, str] = field(default_factory=dict)
    group_sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The part of config.json that tells which model this is.

    `settings` are numbers and names that a forward pass computes with, by name, those of a vision
    or audio part behind its name. Where parts or layers have several values of one, all of them.
    """

    architectures: tuple[str, ...] = ()
    hidden_size: int | None = None
    num_layers: int | None = None
    tied_embeddings: bool = False
    quantization: QuantConfig | None = None
    settings: Mapping[str, frozenset[float | str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CoverageManifest:
    """`*_coverage_from_baseline.json`: which recipes a scheme claims to quantize."""

    name: str
    scheme_name: str | None
    baseline_dir: str | None
    baseline_manifest: str | None
    top_percent: float | None
    fraction: float | None
    total: int | None
    num_selected: int | None
    num_dropped: int | None
    selected: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One searched group of a baseline manifest: what AutoQuant could do with it."""

    name: str
    formats: tuple[str, ...] = ()
    importance: float | None = None
    rank: int | None = None

    @property
    def eligible(self) -> bool:
        """Whether the search could have quantized it: more than a NONE format."""
        return not self.formats or any(not f.startswith("NONE") for f in self.formats)


@dataclass(frozen=True, slots=True)
class BaselineManifest:
    """`*_quant_manifest.json`: an AutoQuant search. `ranking` is least sensitive first."""

    name: str
    scheme_name: str | None
    effective_bits: float | None
    recipes: Mapping[str, Recipe]
    ranking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that one checkpoint directory says of itself.

    `id` is the path relative to ROOT with forward slashes ("." for ROOT itself).
    `documents` says which of the optional documents are there, readable or not;
    `title` is the directory's own name, also where `id` is "."; `companions` has the
    xxh3_128 digest of each tokenizer, processor and template file.
    """

    id: str
    path: str
    shards: tuple[Shard, ...] = ()
    index: Index | None = None
    config: ModelConfig | None = None
    quant_config: QuantConfig | None = None
    coverage: tuple[CoverageManifest, ...] = ()
    baselines: tuple[BaselineManifest, ...] = ()
    defects: tuple[Defect, ...] = ()
    unread: tuple[Unread, ...] = ()
    documents: tuple[str, ...] = ()
    companions: Mapping[str, bytes] = field(default_factory=dict)
    title: str = ""

    def items(self) -> Iterator[tuple[str, Tensor, Shard]]:
        """Every tensor with its name and shard, shard by shard in header order."""
        for shard in self.shards:
            for name, tensor in shard.tensors.items():
                yield name, tensor, shard

    @property
    def all_defects(self) -> tuple[Defect, ...]:
        """Those of the directory, then those of its shards."""
        return self.defects + tuple(d for shard in self.shards for d in shard.defects)

    @property
    def readable(self) -> bool:
        """Whether every header was read, so that a tensor that is not there is absent."""
        lost = any(defect.kind in ("missing-shard", "escaping-path") for defect in self.defects)
        return bool(self.shards) and not lost and all(shard.header for shard in self.shards)

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data, as the headers have them."""
        return sum(t.nbytes for shard in self.shards for t in shard.tensors.values())
