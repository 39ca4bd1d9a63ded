"""The arithmetic of each layout: how its codes become values, and how a base becomes codes.

`dequantised` goes through a weight of any size in flat memory. `closed_form` has what is needed
to tell from the base alone what an export must hold, or says why that cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from ckptdiff.quant import fp8, int4, int8, mx, nvfp4
from ckptdiff.quant.arrays import F32, Array, Rows, Scales
from ckptdiff.quant.dialects import Dialect
from ckptdiff.records.layout import LayoutName


@dataclass(frozen=True, slots=True)
class Coding:
    """How a layout stores a weight [O, I], and what turns codes into values.

    A stored byte holds `rows` x `columns` weights. `dequantise(codes, scales, first)` takes
    stored rows from number `first` on with the scales of the whole weight, and gives float32
    [rows * R, I]. It raises `MisfitError` when they do not go together.
    """

    dequantise: Callable[[Array, Scales, int], F32]
    rows: int = 1
    columns: int = 1


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """The codes and scales of a layout as functions of the base weight [O, I].

    `amax(base, dialect)` is the statistic that linears which share a scale must share: of
    several linears it is the elementwise maximum, where their shapes agree. It is [] for FP8
    and NVFP4, [O] for scales a row, [O/128, I/128] for blocks, and [0] for MX, which has none.
    `scales(amax, base, dialect)` are the scales of the whole weight in the dtypes and shapes
    of the file. `codes(rows, scales, dialect, first)` are the stored rows for base rows that
    start at `first`; the scales may be those of a file. Judge the two apart: an exporter that
    worked out a scale on one device may have packed on another.
    """

    amax: Callable[[Rows, Dialect], F32]
    scales: Callable[[F32, Rows, Dialect], Scales]
    codes: Callable[[Array, Scales, Dialect, int], Array]


@dataclass(frozen=True, slots=True)
class Unprovable:
    """Why the codes do not follow from the base weight."""

    reason: str


CODINGS: Mapping[LayoutName, Coding] = MappingProxyType(
    {
        "fp8": Coding(fp8.dequantise),
        "fp8-channel": Coding(fp8.dequantise_channel),
        "fp8-block": Coding(fp8.dequantise_block),
        "int8": Coding(int8.dequantise),
        "int4": Coding(int4.dequantise, rows=2),
        "int4-fp8": Coding(int4.dequantise, rows=2),
        "nvfp4": Coding(nvfp4.dequantise, columns=2),
        "nvfp4-32": Coding(partial(nvfp4.dequantise, block=nvfp4.WIDE), columns=2),
        "mxfp8": Coding(mx.dequantise_mxfp8),
        "mxfp4": Coding(mx.dequantise_mxfp4, columns=2),
    }
)


def dequantise(layout: LayoutName, codes: Array, scales: Scales, first: int = 0) -> F32:
    """Stored rows from number `first` on -> float32, exactly what they stand for.

    Products are rounded once to float32. Scales of NaN or infinity give NaN or infinity.
    Raises `MisfitError` when codes and scales do not go together.
    """
    with np.errstate(all="ignore"):
        return CODINGS[layout].dequantise(codes, scales, first)


def dequantised(layout: LayoutName, stored: Rows, scales: Scales) -> Iterator[tuple[int, F32]]:
    """(first row of the unpacked weight, float32 rows), `stored.elements` values at a time."""
    coding = CODINGS[layout]
    for first, codes in stored.chunks(coding.rows * coding.columns):
        yield first * coding.rows, dequantise(layout, codes, scales, first)


def closed_form(layout: LayoutName, smoothed: bool = False) -> ClosedForm | Unprovable:
    """The closed form of a layout; `smoothed` when there is a pre_quant_scale."""
    if layout in ("int4", "int4-fp8"):
        return Unprovable("AWQ searches its scales with calibration data")
    if smoothed:
        return Unprovable("the weight was smoothed with statistics of calibration data")
    return _FORMS[layout]


def requantised(
    form: ClosedForm, base: Rows, scales: Scales, dialect: Dialect
) -> Iterator[tuple[int, Array]]:
    """(first row, stored rows) of a base weight under given scales, chunk by chunk."""
    for first, rows in base.chunks():
        yield first, form.codes(rows, scales, dialect, first)


def _no_amax(base: Rows, dialect: Dialect) -> F32:
    return np.zeros(0, np.float32)


def _fp8(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    return Scales(fp8.scale(amax, dialect))


def _fp8_channel(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    return Scales(fp8.scale_channel(amax, dialect))


def _fp8_block(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    return Scales(fp8.scale_block(amax, dialect))


def _int8(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    return Scales(int8.scale(amax, dialect))


def _nvfp4(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    scale_2 = nvfp4.scale_2(amax, dialect.device)
    return Scales(nvfp4.scale(base, scale_2, dialect), scale_2)


def _nvfp4_wide(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    scale_2 = nvfp4.scale_2_wide(amax, dialect.device)
    return Scales(nvfp4.scale(base, scale_2, dialect, nvfp4.WIDE), scale_2)


def _mxfp8(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    return Scales(mx.scale_mxfp8(base, dialect))


def _mxfp4(amax: F32, base: Rows, dialect: Dialect) -> Scales:
    return Scales(mx.scale_mxfp4(base, dialect))


_FORMS: Mapping[LayoutName, ClosedForm] = MappingProxyType(
    {
        "fp8": ClosedForm(fp8.amax, _fp8, fp8.codes),
        "fp8-channel": ClosedForm(fp8.amax_channel, _fp8_channel, fp8.codes_channel),
        "fp8-block": ClosedForm(fp8.amax_block, _fp8_block, fp8.codes_block),
        "int8": ClosedForm(int8.amax, _int8, int8.codes),
        "nvfp4": ClosedForm(nvfp4.amax, _nvfp4, nvfp4.codes),
        "nvfp4-32": ClosedForm(nvfp4.amax, _nvfp4_wide, partial(nvfp4.codes, block=nvfp4.WIDE)),
        "mxfp8": ClosedForm(_no_amax, _mxfp8, mx.codes_mxfp8),
        "mxfp4": ClosedForm(_no_amax, _mxfp4, mx.codes_mxfp4),
    }
)
