"""What recomputing a quantized weight from its base showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.layout import LayoutName, Suffix

# "proven": every code and scale is what a closed form gives. "scale": a scale is not what the
# base gives, and the codes are. "codes": codes are not what the base gives, and perhaps the
# scale is not either. "searched": no closed form says what the weight must be (AWQ,
# SmoothQuant, calibration by other than maxima), so that only its distance from the base is
# known. "unknown": it could not be looked at; `reason` says why.
ProofStatus = Literal["proven", "codes", "scale", "searched", "unknown"]

# Decibels below which a weight that nothing proves is not a quantization of its base. Measured
# on exports of random and of trained models: INT4 AWQ has 15.4 and more, NVFP4 AWQ 20.25, INT8
# SmoothQuant 23.7. A scale that is off by two gives 6 at most, another layer's weight about 0.
LOWEST_SQNR_DB: Mapping[LayoutName, float] = MappingProxyType(
    {
        "fp8": 14.0,
        "fp8-channel": 14.0,
        "fp8-block": 14.0,
        "int8": 14.0,
        "int4": 9.0,
        "int4-fp8": 9.0,
        "nvfp4": 11.0,
        "nvfp4-32": 11.0,
        "mxfp8": 14.0,
        "mxfp4": 11.0,
    }
)

# The share of codes at their extreme beyond which values must have been cut off. Measured as
# above: INT4 1.3 % at most, NVFP4 11.2 %, INT8 0.5 %.
MOST_SATURATED: Mapping[LayoutName, float] = MappingProxyType(
    {
        "fp8": 0.05,
        "fp8-channel": 0.05,
        "fp8-block": 0.05,
        "int8": 0.05,
        "int4": 0.25,
        "int4-fp8": 0.25,
        "nvfp4": 0.25,
        "nvfp4-32": 0.25,
        "mxfp8": 0.05,
        "mxfp4": 0.25,
    }
)


@dataclass(frozen=True, slots=True)
class Whole:
    """A second scale with which nothing was found wrong: its `value`, and from where to where it
    may be by codes.

    `along` is the geometric mean of factors of rows or columns that lie nowhere, as far as codes
    tell them; `largest` what the scale would be by block scales, where they give it.
    """

    value: float
    low: float
    high: float
    along: float | None = None
    largest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What arithmetic says of one quantized weight [O, I], whatever it is called.

    `layout` is the format that it was judged as. `scale_dialects` and `code_dialects`
    ("BF16 cpu") are the ways of reckoning that give its scales and its codes: of the likeliest
    host only, except for codes of FP8 with one scale, where every one is tried. Where both
    devices are named, the bytes are the same on either.
    With "codes", `wrong` of `codes` weights differ from the closest form, or, in a layout that
    has none, are not where rounding can have put them, the first of them at
    [row, column] `first`, where `expected` should be and `actual` is; with "scale" the same is
    said of the elements of the tensor `scale`. `follows`: the codes go with the scale that is
    stored, though it is none that the base's maxima give. `sqnr_db` (of what the exporter rounded:
    where it smoothed columns before, against base's smoothed too) and `saturated` (the share of
    codes at their extreme) are measured for weights that are not proven; `zero`: every value
    is zero, and base's are not. `gain` is the relative error that a rounded scale on CUDA put on
    the whole weight. `whole` is known of searched weights, for comparisons with others. `at_once`:
    the first maxima that were tried proved it, so that others make no difference.
    """

    status: ProofStatus
    layout: LayoutName | None = None
    scale_dialects: tuple[str, ...] = ()
    code_dialects: tuple[str, ...] = ()
    scale: Suffix | None = None
    wrong: int = 0
    codes: int = 0
    first: tuple[int, ...] | None = None
    expected: str | None = None
    actual: str | None = None
    follows: bool = False
    sqnr_db: float | None = None
    saturated: float | None = None
    zero: bool = False
    gain: float | None = None
    whole: Whole | None = None
    at_once: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof(Outcome):
    """The outcome for a module, by its key, its name, its weight's name and shard.

    `unread` is what could not be read for it, which a report has to name; its path is relative
    to the scheme.
    """

    key: str
    module: str
    weight: str
    shard: str
    unread: Unread | None = None
