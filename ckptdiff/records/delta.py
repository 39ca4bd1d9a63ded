"""`ckptdiff.diff/1`: two checkpoints compared tensor by tensor, as it is written to JSON.

Numbers are float64 or null where they do not apply; in JSON, NaN and infinities are strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.report import Tool

DIFF_SCHEMA = "ckptdiff.diff/1"

# "dtype": stored differently, so that values are compared, not bytes; the statistics say by
# how much. "shape": nothing can be compared. "unread": a side could not be read.
DeltaStatus = Literal["same", "changed", "dtype", "shape", "only_a", "only_b", "unread"]
DiffVerdict = Literal["same", "different", "incomplete", "not comparable"]
DiffOrder = Literal["error", "max", "changed", "cosine", "name"]
STATUSES: tuple[DeltaStatus, ...] = get_args(DeltaStatus)
ORDERS: tuple[DiffOrder, ...] = get_args(DiffOrder)
# What `ckptdiff diff` prints unless it is told otherwise: so many rows of each status that is
# not this one. JSON has all of them.
SHOWN_ROWS = 20
UNSHOWN: DeltaStatus = "same"
Number = float | Literal["NaN", "Infinity", "-Infinity"] | None


@dataclass(frozen=True, slots=True)
class Side:
    """A tensor as one checkpoint stores it. `shape` is that of the unpacked weight, `layout`
    the format of a quantized one (null for a plain tensor). `tensor` is its name on disk,
    with the part of it that is meant where experts are stored in one tensor."""

    dtype: str
    shape: tuple[int, ...]
    layout: str | None = None
    tensor: str = ""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What B's values are against A's, both dequantised; `A` is the reference.

    `rel_error` is |B - A| / |A| (Euclidean), `sqnr_db` 10 log10(|A|^2 / |B - A|^2),
    `changed_share` the share of elements that differ, `saturated_share` the share of B's
    codes at their extreme, `nonfinite` the elements that are NaN or infinite on either side
    (left out of the rest), `first_difference` the index of the first element that differs.
    """

    max_abs: Number = None
    mean_abs: Number = None
    rms: Number = None
    rel_error: Number = None
    sqnr_db: Number = None
    cosine_distance: Number = None
    changed_share: Number = None
    saturated_share: Number = None
    nonfinite: int | None = None
    first_difference: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class CodeDelta:
    """Stored codes compared as codes: how many differ, and by how many representable values
    the furthest. `first_difference` counts stored codes in the order of the file."""

    codes: int
    changed: int
    max_steps: int
    first_difference: int | None


@dataclass(frozen=True, slots=True)
class TensorDelta:
    """One tensor of either checkpoint. `a` and `b` are null where a side has none of it.

    `cause` says for a quantized weight whether its codes or its scales differ. `folded` names
    the tensors of B that its weight is compared together with, because AWQ multiplies them by
    what it divides the weight by. `reason` is why there are no numbers.
    """

    name: str
    status: DeltaStatus
    a: Side | None
    b: Side | None
    max_abs: Number = None
    mean_abs: Number = None
    rms: Number = None
    rel_error: Number = None
    sqnr_db: Number = None
    cosine_distance: Number = None
    changed_share: Number = None
    saturated_share: Number = None
    nonfinite: int | None = None
    first_difference: tuple[int, ...] | None = None
    cause: Literal["codes", "scales", "codes and scales"] | None = None
    folded: tuple[str, ...] = ()
    reason: str | None = None
    raw: CodeDelta | None = None


@dataclass(frozen=True, slots=True)
class DiffTotal:
    """Counts of tensors by status. The error is that of all weights whose values were
    compared, which are those that are not the same, but for `nonfinite` of them, which are not
    finite on both sides. Scales, and norms that weights are compared together with, only have
    rows of their own."""

    tensors: int
    same: int
    changed: int
    dtype: int
    shape: int
    only_a: int
    only_b: int
    unread: int
    sqnr_db: Number
    rel_error: Number
    max_abs: Number
    nonfinite: int


@dataclass(frozen=True, slots=True)
class GroupDelta:
    """The error over all compared weights of one kind of module ("q_proj") or one layer, as in
    a `DiffTotal`.
    `tensors` counts all its tensors, `changed` those that differ, "unread" not being among
    them."""

    name: str
    tensors: int
    changed: int
    sqnr_db: Number
    rel_error: Number
    max_abs: Number
    nonfinite: int


@dataclass(frozen=True, slots=True)
class DiffReport:
    """The whole comparison of `b` with `a`.

    `histogram` counts compared elements by the decade of their absolute error: [(log10 of the
    lower edge, count)]; exact zeros are not in it, and where many elements of a large tensor
    differ it is an estimate from a part of them, the largest being among these. `tensors` are
    the rows that were asked for, `left_out` counts those beyond the limit.
    """

    schema: str
    tool: Tool
    a: str
    b: str
    verdict: DiffVerdict
    sentence: str
    total: DiffTotal
    kinds: tuple[GroupDelta, ...]
    layers: tuple[GroupDelta, ...]
    histogram: tuple[tuple[int, int], ...]
    tensors: tuple[TensorDelta, ...]
    left_out: int
    unread: tuple[Unread, ...]
