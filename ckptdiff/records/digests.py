"""Digests of tensor bytes: what two checkpoints are compared by before any arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptdiff.records.checkpoint import Unread


@dataclass(frozen=True, slots=True)
class Flaws:
    """Values of one tensor that should not be there: how many, and the index of the first.

    `nonfinite` counts NaN and infinities, `nonpositive` zeros and negatives in scales.
    Indices count elements of the flattened tensor.
    """

    nonfinite: int = 0
    nonfinite_at: int | None = None
    nonpositive: int = 0
    nonpositive_at: int | None = None


@dataclass(frozen=True, slots=True)
class ShardDigests:
    """The digests of the tensors of one shard, or why there are none.

    `digests` maps a tensor's name to 16 bytes, xxh3_128 big-endian. A tensor whose range
    lies outside the file has no entry. `flaws` has an entry only for tensors with values
    that should not be there. With `unread` set both are empty: a shard that changed while
    it was read may not lend half of its tensors to a comparison.
    """

    digests: Mapping[str, bytes]
    unread: Unread | None = None
    flaws: Mapping[str, Flaws] = field(default_factory=dict)
