"""Weights in memory, quantized whole: the package goes through them chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptdiff.quant.arrays import CHUNK_ELEMENTS, F32, Array, Rows, Scales
from ckptdiff.quant.dialects import Dialect
from ckptdiff.quant.registry import ClosedForm, closed_form, requantised
from ckptdiff.records.layout import LayoutName


@dataclass(frozen=True, slots=True)
class Packed:
    """A quantized weight: stored rows and scales."""

    codes: Array
    scales: Scales


def rows_of(array: Array, elements: int = CHUNK_ELEMENTS) -> Rows:
    """The rows of an array [R, C] that is in memory (or mapped)."""
    count, columns = array.shape
    return Rows(count, columns, lambda first, stop: array[first:stop], elements)


def requantise(layout: LayoutName, base: Rows, dialect: Dialect, amax: F32 | None = None) -> Packed:
    """What an export of `base` holds, in a layout that has a closed form; `amax` when linears
    share their scales."""
    form = closed_form(layout)
    assert isinstance(form, ClosedForm), form
    scales = form.scales(form.amax(base, dialect) if amax is None else amax, base, dialect)
    parts = [codes for _, codes in requantised(form, base, scales, dialect)]
    if parts:
        return Packed(np.concatenate(parts), scales)
    return Packed(form.codes(base.read(0, 0), scales, dialect, 0), scales)
