"""What a front end shows of one scheme, module or tensor when somebody asks for more.

These are views for people who follow a cursor; they are written to no file and have no schema.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a document says: where, what, and the value as text."""

    source: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class SchemeDetail:
    """What the documents of one checkpoint say, in the order in which people ask."""

    path: str
    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class TensorDetail:
    """One tensor on disk. `begin` and `end` are bytes from the start of its shard."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class RecipeDetail:
    """The recipe that a module belongs to. `rank` 1 is the least sensitive of `total`;
    `members` are names of modules on disk."""

    name: str
    members: tuple[str, ...]
    rank: int | None
    total: int
    importance: float | None


@dataclass(frozen=True, slots=True)
class ModuleDetail:
    """One module of one checkpoint, with all that lies beside its weight.

    `layouts` are the formats that its tensors fit, `algorithm` what the config claims;
    `selected` is None where no manifest says.
    """

    path: str
    name: str
    key: str
    dtype: str
    quantized: bool
    selected: bool | None
    layouts: tuple[str, ...]
    algorithm: str | None
    tensors: tuple[TensorDetail, ...]
    recipe: RecipeDetail | None


@dataclass(frozen=True, slots=True)
class ValueDetail:
    """The values of one tensor. Statistics are over its finite elements, None without any.

    `dequantised`: the values are what the codes stand for, not the codes. `histogram` has the
    lower edge, the upper edge and the count of each bin, of equal width from least to greatest.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    dequantised: bool
    elements: int
    nonfinite: int
    zeros: int
    least: float | None
    greatest: float | None
    mean: float | None
    deviation: float | None
    histogram: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, slots=True)
class DifferenceDetail:
    """One row of a diff, by its `name` there: the values of A, those of B, and B - A.

    `difference` is None where stored numbers of the two sides mean different things.
    """

    name: str
    raw: bool
    a: ValueDetail
    b: ValueDetail
    difference: ValueDetail | None


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many bytes checkpoints have in common, tensor by tensor.

    `shared[i][j]` counts the bytes of `schemes[i]`'s tensors that `schemes[j]` has under the
    same key with the same dtype, shape and digest; None where one of the two could not be
    read whole.
    `tensors[i][j]` counts those tensors. `nbytes` and `counts` are totals of each scheme.
    """

    schemes: tuple[str, ...]
    nbytes: tuple[int, ...]
    counts: tuple[int, ...]
    shared: tuple[tuple[int | None, ...], ...]
    tensors: tuple[tuple[int | None, ...], ...]
