"""From pairs and their sums to the rows, groups, totals and the sentence of a diff.

Pure: what was read and what could not be comes in as outcomes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ckptdiff.analysis.codes import CodeSums
from ckptdiff.analysis.differing.alignment import kind_of, layer_of
from ckptdiff.analysis.differing.difference import Sums, rel_error, sqnr, statistics
from ckptdiff.analysis.differing.difference import number as as_number
from ckptdiff.analysis.differing.pairs import Operand, Pair
from ckptdiff.analysis.ordering import natural
from ckptdiff.records.delta import (
    CodeDelta,
    DeltaStatus,
    DiffOrder,
    DiffTotal,
    DiffVerdict,
    GroupDelta,
    Side,
    Statistics,
    TensorDelta,
)
from ckptdiff.records.wording import plural

Cause = Literal["codes", "scales", "codes and scales"]
_NUMBERS = tuple(field.name for field in fields(Statistics))
# What is the same differs by nothing, and nobody had to read it again.
_SAME = Statistics(0.0, 0.0, 0.0, 0.0, "Infinity", 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pair. `sums` where values were compared, `codes` where codes were;
    `reason` is why there are no numbers."""

    pair: Pair
    status: DeltaStatus
    sums: Sums | None = None
    codes: CodeSums | None = None
    cause: Cause | None = None
    reason: str | None = None


def row_of(outcome: Outcome) -> TensorDelta:
    """The row of one pair."""
    pair, sums = outcome.pair, outcome.sums
    found = Statistics()
    if sums is not None:
        assert pair.a is not None and pair.b is not None
        found = statistics(sums, pair.a.shape, pair.b.layout is not None)
    elif outcome.status == "same":
        found = _SAME
    codes = outcome.codes
    return TensorDelta(
        name=pair.name,
        status=outcome.status,
        a=_side(pair.a),
        b=_side(pair.b),
        **{name: getattr(found, name) for name in _NUMBERS},
        cause=outcome.cause,
        folded=pair.folded if sums is not None else (),
        reason=outcome.reason,
        raw=None
        if codes is None
        else CodeDelta(codes.codes, codes.changed, codes.max_steps, codes.first),
    )


def total_of(outcomes: Sequence[Outcome]) -> DiffTotal:
    """Counts by status, and the error over all compared weights."""
    count = Counter(outcome.status for outcome in outcomes)
    return DiffTotal(
        tensors=len(outcomes),
        same=count["same"],
        changed=count["changed"],
        dtype=count["dtype"],
        shape=count["shape"],
        only_a=count["only_a"],
        only_b=count["only_b"],
        unread=count["unread"],
        **_error(outcomes, _folded_into(outcomes)),
    )


def groups_of(
    outcomes: Iterable[Outcome],
    name_of: Callable[[str], str | None],
    without: Collection[str] = (),
) -> tuple[GroupDelta, ...]:
    """The outcomes by what `name_of` makes of their keys, in natural order; the error of keys
    in `without` is left out."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        name = name_of(outcome.pair.key)
        if name is not None:
            found[name].append(outcome)
    return tuple(
        GroupDelta(
            name,
            len(members),
            sum(member.status not in ("same", "unread") for member in members),
            **_error(members, without),
        )
        for name, members in sorted(found.items(), key=lambda item: natural(item[0]))
    )


def kinds_of(outcomes: Iterable[Outcome]) -> tuple[GroupDelta, ...]:
    """By kind of module."""
    return groups_of(outcomes, kind_of)


def layers_of(outcomes: Sequence[Outcome]) -> tuple[GroupDelta, ...]:
    """By layer; what belongs to none is left out."""
    return groups_of(outcomes, layer_of, _folded_into(outcomes))


def histogram_of(outcomes: Sequence[Outcome]) -> tuple[tuple[int, int], ...]:
    """Compared elements of weights by the decade of their absolute error, smallest first."""
    found: dict[int, float] = defaultdict(float)
    for outcome in _weights(outcomes, _folded_into(outcomes)):
        if outcome.sums is not None:
            for decade, count in outcome.sums.histogram().items():
                found[decade] += count
    return tuple((decade, round(count)) for decade, count in sorted(found.items()))


def chosen(
    rows: Iterable[TensorDelta], order: DiffOrder, only: Sequence[str], limit: int | None
) -> tuple[tuple[TensorDelta, ...], int]:
    """The rows to show, and how many more there are: `limit` is for each status by itself,
    so that thousands of one kind do not hide those of another."""
    kept = [row for row in rows if not only or row.status in only]
    kept.sort(key=lambda row: natural(row.name))
    if order != "name":
        kept.sort(key=lambda row: _rank(row, order))
    if limit is None:
        return tuple(kept), 0
    seen: Counter[str] = Counter()
    shown = []
    for row in kept:
        kind = "compared" if row.rel_error is not None and row.status != "same" else row.status
        seen[kind] += 1
        if seen[kind] <= limit:
            shown.append(row)
    return tuple(shown), len(kept) - len(shown)


def verdict_of(total: DiffTotal, outcomes: Sequence[Outcome], unread: bool) -> DiffVerdict:
    """A difference that was found outweighs what could not be looked at; checkpoints that
    have no tensor in common were not compared at all."""
    if not any(o.pair.a and o.pair.b for o in outcomes) and (total.only_a or total.only_b):
        return "not comparable"
    if total.changed or total.dtype or total.shape or total.only_a or total.only_b:
        return "different"
    return "incomplete" if unread or total.unread else "same"


def sentence_of(
    verdict: DiffVerdict, total: DiffTotal, outcomes: Sequence[Outcome], part: bool = False
) -> str:
    """The verdict in one sentence; the two checkpoints are A and B in it. `part`: the outcomes
    are those of tensors that somebody picked."""
    if verdict == "not comparable":
        if part:
            return "none of the tensors that were asked for is in both A and B"
        return "no tensor of A has a counterpart in B"
    if verdict == "same":
        asked = " that were asked for" * part
        what = f"all {total.tensors:,} tensors{asked} of B are those of A"
        if total.tensors == 1:
            what = f"the one tensor{' that was asked for' * part} of B is that of A"
        return f"{what}, byte for byte"
    lost = f"; {plural(total.unread, 'tensor')} could not be compared" if total.unread else ""
    if verdict == "incomplete" and total.unread == total.tensors:
        return "nothing of A and B could be compared"
    if verdict == "incomplete":
        return f"what could be read of A and B is the same, but not all could be{lost}"
    different = [o for o in outcomes if o.status not in ("same", "unread")]
    return f"{_differences(total, different)}{_by_how_much(total, different)}{lost}"


def _differences(total: DiffTotal, different: Sequence[Outcome]) -> str:
    if len(different) == 1:
        found = row_of(different[0])
        return f"one tensor of {total.tensors:,} differs: {found.name}{_in_what(found)}"
    parts = [
        (total.changed, "with other values"),
        (total.dtype, "stored in another format"),
        (total.shape, "of another shape"),
        (total.only_a, "only in A"),
        (total.only_b, "only in B"),
    ]
    said = ", ".join(f"{count:,} {what}" for count, what in parts if count)
    return f"{len(different):,} of {total.tensors:,} tensors differ: {said}"


def _in_what(row: TensorDelta) -> str:
    """What there is to say of a tensor that is the only one to differ."""
    if row.b is None:
        return ", only in A"
    if row.a is None:
        return ", only in B"
    if row.status == "shape":
        return f", of shape {list(row.a.shape)} in A and {list(row.b.shape)} in B"
    if row.first_difference is not None:
        return f", first at {list(row.first_difference)}"
    return ""


def _by_how_much(total: DiffTotal, different: Sequence[Outcome]) -> str:
    folded = sum(bool(o.pair.folded) and o.sums is not None for o in different)
    acting = f" ({folded:,} of them as they act, AWQ undone)" if folded else ""
    lost = sum(o.sums.nonfinite for o in different if o.sums is not None)
    apart = f"; {lost:,} {'value is' if lost == 1 else 'values are'} NaN or infinite" * bool(lost)
    if total.sqnr_db is None:
        return apart
    if total.max_abs == 0:
        return apart or f"; the weights have equal values{acting}"
    if isinstance(total.sqnr_db, float):
        return f"; SQNR of the weights {total.sqnr_db:.1f} dB{acting}{apart}"
    return f"{acting}{apart}"


def _folded_into(outcomes: Iterable[Outcome]) -> frozenset[str]:
    """Keys of the norms that weights are compared together with: their error is in those."""
    folds = (outcome.pair.fold for outcome in outcomes if outcome.sums is not None)
    return frozenset(fold.key for fold in folds if fold is not None)


def _weights(outcomes: Iterable[Outcome], without: Collection[str]) -> Iterator[Outcome]:
    """Those whose values were compared, and that no other row already stands for."""
    for outcome in outcomes:
        pair = outcome.pair
        if outcome.sums is not None and not pair.is_scale and pair.key not in without:
            yield outcome


def _error(outcomes: Iterable[Outcome], without: Collection[str] = ()) -> dict[str, Any]:
    """The error over the weights among the outcomes; null when no finite value was compared."""
    sums = Sums()
    for outcome in _weights(outcomes, without):
        if outcome.sums is not None:
            sums.add(outcome.sums)
    found: dict[str, Any] = {
        "sqnr_db": None,
        "rel_error": None,
        "max_abs": None,
        "nonfinite": sums.nonfinite,
    }
    if sums.elements > sums.nonfinite:
        found |= {
            "sqnr_db": sqnr(sums),
            "rel_error": rel_error(sums),
            "max_abs": as_number(sums.top),
        }
    return found


def _rank(row: TensorDelta, order: DiffOrder) -> tuple[int, float]:
    """Largest first, what has no number last. No number says how far off NaN and infinities
    are: what has some of them comes before all others."""
    if row.nonfinite and order != "changed":
        return (-1, -float(row.nonfinite))
    value = {
        "error": row.rel_error,
        "max": row.max_abs,
        "changed": row.changed_share,
        "cosine": row.cosine_distance,
    }[order]
    if value is None:
        return (1, 0.0)
    found = float(value)
    return (0, -math.inf if math.isnan(found) else -found)


def _side(operand: Operand | None) -> Side | None:
    if operand is None:
        return None
    return Side(operand.tensor.dtype, operand.shape, operand.format, operand.spelled)
