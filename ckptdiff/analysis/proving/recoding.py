"""The codes of a stored weight against those that its base gives, in one dialect at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptdiff.quant.arrays import Array, Rows, Scales, scalar
from ckptdiff.quant.dialects import DEVICES, Dialect, Host, rounded
from ckptdiff.quant.registry import CODINGS, ClosedForm, closed_form
from ckptdiff.records.layout import LayoutName


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Codes that are not those of a dialect: `wrong` of them, the first at [row, column]
    `first`; `stop` is the first row of the chunk in which that is."""

    layout: LayoutName
    dialect: Dialect
    wrong: int
    stop: int
    first: tuple[int, int]
    expected: int
    actual: int


def compare(
    layout: LayoutName,
    stored: Rows,
    base: Rows,
    scales: Scales,
    dialect: Dialect,
    *,
    first_only: bool = True,
) -> Mismatch | None:
    """What differs, None when nothing does; with `first_only` no more than one chunk of it."""
    form = form_of(layout)
    found: Mismatch | None = None
    for start, rows in base.chunks():
        expected = form.codes(rows, scales, dialect, start)
        actual = stored.read(start, start + len(rows))
        if np.array_equal(expected, actual.view(expected.dtype)):
            continue
        here = _differences(layout, dialect, start, expected.view(np.uint8), actual.view(np.uint8))
        if first_only:
            return here
        found = here if found is None else replace(found, wrong=found.wrong + here.wrong)
    return found


def code_dialects(
    layout: LayoutName, hosts: Sequence[Host], exact: Sequence[Host]
) -> Iterator[Dialect]:
    """The dialects in which codes can differ, in the order of `hosts`; `exact` has one host of
    each set in which the base's values are the same numbers.

    The device shows only in FP8 with one scale, where that has been in a dtype of 16 bits.
    """
    if layout != "fp8":
        yield from (Dialect(host, "cpu") for host in exact)
        return
    for host in hosts:
        for device in DEVICES if host != "F32" else DEVICES[:1]:
            yield Dialect(host, device)


def alike(layout: LayoutName, dialect: Dialect, scales: Scales) -> tuple[Dialect, ...]:
    """The dialects of one host that give the same codes as `dialect`."""
    if layout == "fp8" and dialect.host != "F32":
        step = np.asarray(scalar(scales.weight_scale))
        if rounded(step, dialect.host) != step:
            return (dialect,)
    return tuple(Dialect(dialect.host, device) for device in DEVICES)


def gain(layout: LayoutName, dialects: Sequence[Dialect], scales: Scales) -> float | None:
    """How much too large every value is, relatively, when codes were made by a rounded scale
    and the one that is stored is not rounded; None where another dialect explains them too."""
    rounding = [d for d in dialects if d.device == "cuda" and d.host != "F32"]
    if layout != "fp8" or not rounding or len(rounding) < len(dialects):
        return None
    stored = scalar(scales.weight_scale)
    return float(stored) / float(rounded(np.asarray(stored), rounding[0].host)) - 1


def spell_code(layout: LayoutName, code: int) -> str:
    """A code as it is shown: a number in INT8, else bits."""
    if layout == "int8":
        return str(code - 256 if code > 127 else code)
    return f"0x{code:x}" if CODINGS[layout].columns == 2 else f"0x{code:02x}"


def form_of(layout: LayoutName) -> ClosedForm:
    """The closed form of a layout that has one."""
    form = closed_form(layout)
    assert isinstance(form, ClosedForm)
    return form


def _differences(
    layout: LayoutName, dialect: Dialect, start: int, expected: Array, actual: Array
) -> Mismatch:
    """What differs in the stored rows from `start` on, counted in weights."""
    if CODINGS[layout].columns == 2:
        expected, actual = _nibbles(expected), _nibbles(actual)
    unequal = expected != actual
    row, column = divmod(int(unequal.argmax()), unequal.shape[1])
    return Mismatch(
        layout=layout,
        dialect=dialect,
        wrong=int(np.count_nonzero(unequal)),
        stop=start,
        first=(start + row, column),
        expected=int(expected[row, column]),
        actual=int(actual[row, column]),
    )


def _nibbles(codes: Array) -> Array:
    """Bytes [R, I/2] to codes [R, I], the low nibble being the even column."""
    out = np.empty((len(codes), 2 * codes.shape[1]), np.uint8)
    out[:, 0::2], out[:, 1::2] = codes & 15, codes >> 4
    return out
