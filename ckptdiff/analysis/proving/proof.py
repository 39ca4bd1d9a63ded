"""Recomputes a quantized weight from its base and says where the two disagree.

Arithmetic over rows and scales, in flat memory. Which tensors belong together, where their
bytes come from and what a disagreement is called in a report are decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptdiff.analysis.proving.faults import Strays
from ckptdiff.analysis.proving.leeway import Axis
from ckptdiff.analysis.proving.nearness import Nearness, elements, measure
from ckptdiff.analysis.proving.recoding import (
    alike,
    code_dialects,
    compare,
    form_of,
    gain,
    spell_code,
)
from ckptdiff.quant.arrays import F32, Array, Rows, Scales, scalar
from ckptdiff.quant.dialects import DEVICES, Dialect, Host
from ckptdiff.quant.registry import ClosedForm, closed_form
from ckptdiff.quant.tables import E4M3_MAX
from ckptdiff.records.layout import LayoutName, Suffix
from ckptdiff.records.proof import LOWEST_SQNR_DB, MOST_SATURATED, Outcome, Whole

_SUFFIXES: tuple[Suffix, ...] = ("weight_scale", "weight_scale_2", "pre_quant_scale")
_E4M3_NAN, _E8M0_NAN = 0x7F, 0xFF
_INT4_MAX = 7
# Values in a row beyond which a matrix is no weight of a model, and too much for memory.
_WIDEST = 1 << 24


@dataclass(frozen=True, slots=True)
class Weight:
    """A quantized weight, and the base's of the same module.

    `layouts` are the formats that its tensors allow and `hosts` the dtypes that the exporter's
    model may have had, the likeliest first; `scale_hosts` has one of those in which the base's
    values are the same numbers. `shares` are sets of base weights over which a scale for the
    whole tensor may have been taken. `searched` says that this may be an AWQ export although
    nothing beside the weight shows it: `folds` are factors [I] that it may have put into a norm,
    with `folded` the one that it has put into the norm in front, or, should that multiply by one
    more than its weight, the one of `shifted`; `rescaled` where it may have moved factors to a
    neighbour.
    """

    layouts: tuple[LayoutName, ...]
    stored: Rows
    scales: Scales
    base: Rows
    hosts: tuple[Host, ...]
    scale_hosts: tuple[Host, ...]
    shares: tuple[tuple[str, ...], ...]
    folds: tuple[F32, ...] = ()
    folded: bool = False
    shifted: tuple[F32, ...] = ()
    searched: bool = False
    rescaled: Axis | None = None


class Maxima:
    """The statistics of base weights [O, I] that scales are made from, each taken once."""

    def __init__(self, weights: Mapping[str, Rows]) -> None:
        self._weights = weights
        self._known: dict[tuple[str, LayoutName, Host], F32] = {}

    def over(self, members: Sequence[str], layout: LayoutName, host: Host) -> F32 | None:
        """The elementwise maximum; None where the statistics have different shapes."""
        found = [self._of(member, layout, host) for member in members]
        if len({one.shape for one in found}) != 1:
            return None
        return np.asarray(np.maximum.reduce(found), np.float32)

    def _of(self, member: str, layout: LayoutName, host: Host) -> F32:
        known = (member, layout, host)
        if known not in self._known:
            form = form_of(layout)
            self._known[known] = form.amax(self._weights[member], Dialect(host, "cpu"))
        return self._known[known]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way in which the scales may have come about, and how far they are from it."""

    layout: LayoutName
    scales: Scales
    wrong: int


def judge(weight: Weight, maxima: Maxima) -> Outcome:
    """The outcome for one weight. Raises what reading raises, and `MisfitError`."""
    if reason := _unusable(weight):
        return Outcome(status="unknown", reason=reason)
    smoothed = weight.scales.pre_quant_scale is not None
    layouts = [
        name for name in weight.layouts if isinstance(closed_form(name, smoothed), ClosedForm)
    ]
    if not layouts:
        return _searched(weight, weight.layouts[0])
    right = _right_scales(weight, layouts, maxima)
    if right:
        outcome = _judge_codes(weight, dict.fromkeys(right, weight.scales))
        if outcome.status == "proven" or not weight.searched:
            assert outcome.layout is not None
            dialects, first = right[outcome.layout]
            at_once = first and outcome.status == "proven" and outcome.layout == layouts[0]
            return replace(outcome, scale_dialects=dialects, at_once=at_once)
    if weight.searched:
        return _searched(weight, layouts[0])
    return _wrong_scale(weight, layouts, maxima)


def _unusable(weight: Weight) -> str | None:
    """Why nothing can be worked out, as with scales that rules about values report."""
    scales = weight.scales
    if weight.base.columns > _WIDEST:
        return f"its rows of {weight.base.columns:,} values are too long to be recomputed"
    for suffix in _SUFFIXES:
        scale = getattr(scales, suffix)
        if scale is None:
            continue
        if scale.dtype != np.uint8:
            values = scale.astype(np.float32)
            good = np.isfinite(values) & (values > 0)
        elif weight.layouts[0].startswith("nvfp4"):
            good = (scale > 0) & (scale < _E4M3_NAN)
        else:
            good = scale != _E8M0_NAN
        if not np.all(good):
            return f"its {suffix} has values that no scale can have"
    return None


# Scales


def _right_scales(
    weight: Weight, layouts: Sequence[LayoutName], maxima: Maxima
) -> dict[LayoutName, tuple[tuple[str, ...], bool]]:
    """The layouts whose closed form gives the stored scales, with the dialects that do, and
    whether the first maxima did."""
    found = {}
    for layout in layouts:
        for number, (host, amax) in enumerate(_amaxes(weight, layout, maxima)):
            if holding := _giving(weight, layout, amax, host):
                found[layout] = tuple(map(_spell, holding)), number == 0
                break
    return found


def _amaxes(weight: Weight, layout: LayoutName, maxima: Maxima) -> Iterator[tuple[Host, F32]]:
    """What the scales may have been taken from, the likeliest first, each once."""
    seen = set()
    for host in weight.scale_hosts:
        for members in weight.shares:
            amax = maxima.over(members, layout, host)
            if amax is not None and (host, amax.tobytes()) not in seen:
                seen.add((host, amax.tobytes()))
                yield host, amax


def _giving(weight: Weight, layout: LayoutName, amax: F32, host: Host) -> list[Dialect]:
    """The dialects of a host that make the stored scales of `amax`."""
    form, stored = form_of(layout), weight.scales
    found: list[Dialect] = []
    for dialect in (Dialect(host, device) for device in DEVICES):
        # Without a row, only what stands for the whole tensor is worked out: that is cheap.
        whole = form.scales(amax, replace(weight.base, count=0), dialect).weight_scale_2
        if not _same(whole, stored.weight_scale_2):
            continue
        # Scales of blocks follow from that, where there is one.
        if (found and whole is not None) or _same(
            form.scales(amax, weight.base, dialect).weight_scale, stored.weight_scale
        ):
            found.append(dialect)
    return found


def _same(expected: Array | None, stored: Array | None) -> bool:
    if expected is None or stored is None:
        return expected is None  # what the form has none of says nothing
    # A scalar may be stored as [1], and one scale a row as [O, 1].
    return expected.size == stored.size and not _unequal(expected, stored).any()


def _wrong_scale(weight: Weight, layouts: Sequence[LayoutName], maxima: Maxima) -> Outcome:
    """No form gives the scales: would the codes be right, if the scales were?"""
    attempts = sorted(_attempts(weight, layouts, maxima), key=lambda each: each.wrong)
    follows = any(_holding(weight, layout, weight.scales) for layout in layouts)
    for attempt in attempts:
        if codes := _holding(weight, attempt.layout, attempt.scales):
            return _about_scale(weight, attempt, follows, codes)
    closest = attempts[0]
    if follows:
        return _about_scale(weight, closest, follows, ())
    about = _judge_codes(weight, {closest.layout: closest.scales})
    return replace(about, scale=_differing(closest.scales, weight.scales)[0])


def _attempts(weight: Weight, layouts: Sequence[LayoutName], maxima: Maxima) -> Iterator[_Attempt]:
    for layout in layouts:
        for host, amax in _amaxes(weight, layout, maxima):
            for device in DEVICES:
                scales = form_of(layout).scales(amax, weight.base, Dialect(host, device))
                yield _Attempt(layout, scales, _distance(scales, weight.scales))


def _distance(expected: Scales, stored: Scales) -> int:
    """How many elements of the scales differ."""
    differing = int(not _same(expected.weight_scale_2, stored.weight_scale_2))
    return differing + int(np.count_nonzero(_unequal(expected.weight_scale, stored.weight_scale)))


def _unequal(one: Array, other: Array) -> Array:
    """Which elements have other bits, in the shape of `other`."""
    kind = np.dtype(f"u{other.dtype.itemsize}")
    left, right = np.ascontiguousarray(one).view(kind), np.ascontiguousarray(other).view(kind)
    return np.asarray(left.reshape(other.shape) != right.reshape(other.shape))


def _differing(expected: Scales, stored: Scales) -> tuple[Suffix, Array, Array]:
    """The scale tensor that is wrong, as it should be and as it is."""
    if not _same(expected.weight_scale_2, stored.weight_scale_2):
        assert expected.weight_scale_2 is not None and stored.weight_scale_2 is not None
        return "weight_scale_2", expected.weight_scale_2, stored.weight_scale_2
    return "weight_scale", expected.weight_scale, stored.weight_scale


def _about_scale(
    weight: Weight, attempt: _Attempt, follows: bool, code_dialects: tuple[str, ...]
) -> Outcome:
    suffix, expected, stored = _differing(attempt.scales, weight.scales)
    unequal = _unequal(expected, stored)
    first = tuple(int(at) for at in np.argwhere(unequal)[0])
    measured = _measured(weight, attempt.layout)
    return replace(
        measured,
        status="scale",
        code_dialects=code_dialects,
        scale=suffix,
        wrong=int(np.count_nonzero(unequal)),
        codes=stored.size,
        first=first,
        expected=_spell_scale(expected.reshape(stored.shape)[first]),
        actual=_spell_scale(stored[first]),
        follows=follows,
    )


def _spell_scale(value: np.generic) -> str:
    return f"0x{int(value):02x}" if isinstance(value, np.uint8) else f"{float(value):.9g}"


# Codes


def _judge_codes(weight: Weight, scales: Mapping[LayoutName, Scales]) -> Outcome:
    """The outcome when the scales are right for these layouts: proven, or which codes are
    wrong in the form that held longest, or was nearly right where it ended."""
    mismatches = []
    for layout, given in scales.items():
        holding: list[Dialect] = []
        for dialect in code_dialects(layout, weight.hosts, weight.scale_hosts):
            if dialect in holding:
                continue
            found = compare(layout, weight.stored, weight.base, given, dialect)
            if found is not None:
                mismatches.append(found)
                continue
            holding += alike(layout, dialect, given)
            # Hosts that BF16 fits in agree but for denormals: the likeliest is enough, save
            # where a quotient is rounded to the host's dtype. There others fail at once.
            if layout != "fp8":
                break
        if holding:
            return Outcome(
                status="proven",
                layout=layout,
                code_dialects=tuple(map(_spell, holding)),
                codes=elements(weight.stored, layout),
                gain=gain(layout, holding, given),
            )
    best = max(mismatches, key=lambda each: (each.stop, -each.wrong))
    layout, given = best.layout, scales[best.layout]
    whole = compare(layout, weight.stored, weight.base, given, best.dialect, first_only=False)
    assert whole is not None
    return replace(
        _measured(weight, layout),
        status="codes",
        wrong=whole.wrong,
        first=whole.first,
        expected=spell_code(layout, whole.expected),
        actual=spell_code(layout, whole.actual),
    )


def _holding(weight: Weight, layout: LayoutName, scales: Scales) -> tuple[str, ...]:
    """The first dialect in which all codes follow from these scales, and those like it."""
    for dialect in code_dialects(layout, weight.hosts, weight.scale_hosts):
        if compare(layout, weight.stored, weight.base, scales, dialect) is None:
            return tuple(map(_spell, alike(layout, dialect, scales)))
    return ()


def _spell(dialect: Dialect) -> str:
    return f"{dialect.host} {dialect.device}"


# Distances


def _searched(weight: Weight, layout: LayoutName) -> Outcome:
    """What nothing proves: it has to be near, and every value where rounding can have put it."""
    found = _near(weight, layout)
    outcome = _distance_of(weight, layout, found)
    # What is wrong with the whole is not told value by value.
    if found.zero or _is_far(found, layout) or found.saturated > MOST_SATURATED[layout]:
        return replace(outcome, status="searched")
    if found.fault is None:
        return replace(outcome, status="searched", whole=_whole(weight, layout, found))
    fault = found.fault
    told = replace(outcome, wrong=fault.count, first=fault.first)
    behind = ", behind the norm in front of it" if weight.folded else ""
    if isinstance(fault, Strays):
        return replace(
            told,
            status="codes",
            expected=f"a neighbour of {fault.wanted:.6g}{behind}",
            actual=f"{fault.actual:.6g}",
        )
    return replace(
        told,
        status="scale",
        scale=fault.suffix,
        codes=fault.total,
        expected=f"{fault.low:.4g} to {fault.high:.4g}",
        actual=f"{fault.actual:.6g}",
    )


def _whole(weight: Weight, layout: LayoutName, found: Nearness) -> Whole | None:
    """What is known of the second scale of a weight that is sound."""
    if weight.scales.weight_scale_2 is None:
        return None
    value = float(scalar(weight.scales.weight_scale_2))
    if layout == "int4-fp8":
        top = weight.scales.weight_scale.max() * np.float32(_INT4_MAX) / np.float32(E4M3_MAX)
        return Whole(value, 0.0, math.inf, largest=float(top))
    reach = found.reach
    return Whole(value, value * reach.low, value * reach.high, along=reach.along)


def _near(weight: Weight, layout: LayoutName) -> Nearness:
    def under(folds: Sequence[F32]) -> Nearness:
        parts = layout, weight.stored, weight.scales, weight.base
        return measure(*parts, folds, weight.rescaled, folded=weight.folded)

    found = under(weight.folds)
    if not weight.folded or (found.fault is None and not _is_far(found, layout)):
        return found
    other = under(weight.shifted)
    return found if other.fault or _is_far(other, layout) else other


def _is_far(found: Nearness, layout: LayoutName) -> bool:
    return found.sqnr_db is not None and found.sqnr_db < LOWEST_SQNR_DB[layout]


def _measured(weight: Weight, layout: LayoutName) -> Outcome:
    """What is said of a weight that is not proven, with a status still to be given."""
    return _distance_of(weight, layout, _near(weight, layout))


def _distance_of(weight: Weight, layout: LayoutName, found: Nearness) -> Outcome:
    return Outcome(
        status="unknown",
        layout=layout,
        codes=elements(weight.stored, layout),
        sqnr_db=found.sqnr_db,
        saturated=found.saturated,
        zero=found.zero,
    )
