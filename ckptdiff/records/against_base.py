"""How the tensors of a scheme that should be base's compare with it."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdiff.records.checkpoint import Tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of a scheme beside the base's of the same key; either may be missing."""

    name: str
    shard: str
    tensor: Tensor | None
    base: Tensor | None


@dataclass(frozen=True, slots=True)
class AgainstBase:
    """One scheme against the base, tensor by tensor, quantized weights left out.

    `folded` are tensors that an AWQ export changes on purpose, so that nothing can be said
    of them; `base_only` are those that exports never carry. `apart` are tensors of experts that
    lie otherwise in the base, in a way that is not known.
    """

    differs: tuple[Pair, ...] = ()
    other_dtype: tuple[Pair, ...] = ()
    shapes: tuple[Pair, ...] = ()
    missing: tuple[Pair, ...] = ()
    base_only: tuple[Pair, ...] = ()
    extra: tuple[Pair, ...] = ()
    folded: tuple[Pair, ...] = ()
    unknown: tuple[Pair, ...] = ()
    apart: tuple[Pair, ...] = ()
