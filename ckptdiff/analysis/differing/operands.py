"""Opens the two sides of a pair and goes through them together, a chunk at a time.

Each side is read and dequantised as it is needed and never held: a chunk of one and a chunk of
the other become sums, and the next is read. What the sums mean belongs to `difference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ckptdiff.analysis.codes import CodeSums, at_their_extreme, bits, code_sums
from ckptdiff.analysis.differing.difference import CHUNK, Sums
from ckptdiff.analysis.differing.onepass import OnePass
from ckptdiff.analysis.differing.pairs import Fold, Gain, Operand, Pair
from ckptdiff.analysis.tensors import TensorReader, is_transposed
from ckptdiff.analysis.unpacking import open_rows
from ckptdiff.events import CancelToken
from ckptdiff.formats.names import norms_add_one
from ckptdiff.quant.arrays import F32, STORED, Array, MisfitError
from ckptdiff.quant.registry import CODINGS, dequantise
from ckptdiff.quant.tables import E8M0, decode, decode_e4m3
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName

# Columns of a transposed expert lie apart in the file: fewer and longer reads.
_TRANSPOSED_CHUNK = 1 << 20
# Elements of a tensor that is so large that its histogram may be an estimate: to sort every
# error takes seven times as long as all the rest.
_SAMPLED = 1 << 16
# Values in a row beyond which a weight that is read by rows is no weight of a model.
_WIDEST = 1 << 24
# Elements that are compared before all others.
_GLANCE = 1 << 10
_BF16 = STORED["BF16"]
_SHORT = (_BF16, np.dtype(np.float32))  # what need not be worked on in float64
_HALF_FIELDS = np.uint32(0x8FFFE000).view(np.int32)
_HALF_BIAS = np.float32(2.0 ** (127 - 15))


@dataclass(frozen=True, slots=True)
class Opened:
    """One side of a pair as a matrix of values [count, columns].

    `stored(first, stop)` gives the stored rows behind the rows of values [first, stop),
    `values(stored, first)` what they stand for, `saturated(stored)` how many codes are at their
    extreme; None for a plain tensor.
    """

    dtype: str
    layout: LayoutName | None
    stored: Callable[[int, int], Array]
    values: Callable[[Array, int], Array]
    saturated: Callable[[Array], int] | None = None
    scales: bytes = b""


@dataclass(frozen=True, slots=True)
class OpenPair:
    """Both sides as matrices [count, columns] of the same values.

    `step` is how many rows are read at a time, `codes_in` how many values a stored element
    of A holds. `bitwise`: both are plain tensors of one dtype, so that an element has changed
    when its bytes have. `alike`: equal stored rows are equal values.
    """

    a: Opened
    b: Opened
    count: int
    columns: int
    step: int
    codes_in: int
    bitwise: bool
    alike: bool

    def spans(self, elements: int) -> Iterator[tuple[int, int]]:
        """The rows in ranges of about that many elements, each of whole steps."""
        rows = max(1, elements // max(1, self.step * self.columns)) * self.step
        for first in range(0, self.count, rows):
            yield first, min(first + rows, self.count)


class Workspace:
    """What a thread asks for once: room for the float32 of one chunk of each side, and the
    compiled pass over them where there is one."""

    def __init__(self, chunk: int | None, one_pass: OnePass | None) -> None:
        self.a, self.b = np.empty((2, 2 * (chunk or CHUNK)), np.float32)
        self.one_pass = one_pass


def open_pair(
    reader: TensorReader,
    a: SchemeEvidence,
    b: SchemeEvidence,
    pair: Pair,
    *,
    same_scales: bool,
    chunk: int | None = None,
) -> OpenPair:
    """Both sides of a pair that has two of the same shape and no obstacle.

    `same_scales`: what lies beside the two weights is the same. `chunk`: about how many elements
    are gone through at a time, None: as many as suit numpy. Raises `MisfitError` when codes
    and scales do not go together, `KeyError` for a dtype without numbers, `Unreadable`.
    """
    assert pair.a is not None and pair.b is not None
    shape = pair.a.shape
    acts = pair.fold is not None or pair.gain is not None
    flat = not acts and all(_is_elementwise(side) for side in (pair.a, pair.b))
    columns = 1 if flat or not shape else math.prod(shape[1:])
    count = math.prod(shape) // columns if columns else 0
    if columns > _WIDEST:
        raise MisfitError(f"its rows of {columns:,} values are too long to be compared")
    factor = None if pair.fold is None else _ratio(reader, a, b, pair.fold)
    gains = None if pair.gain is None else _gains(reader, a, b, pair.gain)
    transposed = any(map(_is_transposed, (pair.a, pair.b)))
    step = max(1, (_TRANSPOSED_CHUNK if transposed else chunk or CHUNK) // max(1, columns))
    grain = math.lcm(*(_grain(side) for side in (pair.a, pair.b)))
    plain = pair.a.coding is None and pair.b.coding is None
    alike = pair.a.tensor.dtype == pair.b.tensor.dtype and pair.a.coding == pair.b.coding
    one, other = _opened(reader, a, pair.a, flat), _opened(reader, b, pair.b, flat)
    if one.scales and one.scales == other.scales:  # of this expert, whatever others have
        same_scales = True
    return OpenPair(
        a=one,
        b=_acting(other, factor, gains, pair.gain),
        count=count,
        columns=columns,
        step=-(-step // grain) * grain,
        codes_in=_values_in(pair.a),
        bitwise=alike and plain and not acts,
        alike=alike and same_scales and not acts,
    )


def compared(
    pair: OpenPair,
    first: int,
    stop: int,
    room: Workspace,
    cancel: CancelToken,
    exact: bool = False,
    codes: CodeSums | None = None,
) -> Sums:
    """The sums of rows [first, stop); `codes` takes those of the stored codes.

    Raises `Cancelled`, and what `open_pair` raises.
    """
    sums = Sums()
    sampled = pair.count * pair.columns > _SAMPLED
    with np.errstate(all="ignore"):
        for at in range(first, stop, pair.step):
            cancel.raise_if_cancelled()
            end = min(at + pair.step, stop)
            a, b = pair.a.stored(at, end), pair.b.stored(at, end)
            if pair.alike and _same_bytes(a, b):
                sums.unchanged(_floats(pair.a, a, at, room.a))
            else:
                sums.touched = True
                _compare(sums, pair, a, b, at, room, sampled, exact)
            if pair.b.saturated is not None:
                sums.saturated += pair.b.saturated(b)
            if codes is not None:
                number = at * pair.columns // pair.codes_in
                codes.add(code_sums(pair.a.layout, pair.a.dtype, a, b, number))
    return sums


def _compare(
    sums: Sums,
    pair: OpenPair,
    a: Array,
    b: Array,
    at: int,
    room: Workspace,
    sampled: bool,
    exact: bool,
) -> None:
    """Add stored rows `a` against `b`; row `at` is the first."""
    x = _floats(pair.a, a, at, room.a, bf16=room.one_pass is not None)
    y = _floats(pair.b, b, at, room.b, bf16=pair.bitwise and x.dtype == _BF16)
    if x.shape != y.shape:
        raise MisfitError(f"{x.size} values against {y.size}")
    first = at * pair.columns
    short = x.dtype in _SHORT and y.dtype in _SHORT
    if short and room.one_pass is not None:
        return sums.take_at_once(room.one_pass, x, y, first, pair.bitwise, sampled)
    differs = (bits(a) != bits(b)).reshape(-1) if pair.bitwise else None
    if short and not exact:
        if sums.take(x, y, first, differs, sampled):
            return None
        y = _floats(pair.b, b, at, room.b)  # it has been written over
    return sums.take_exactly(x, y, first, differs, sampled)


def _values_in(operand: Operand) -> int:
    if operand.layout is None:
        return 1
    return CODINGS[operand.layout].rows * CODINGS[operand.layout].columns


def _is_transposed(operand: Operand) -> bool:
    """Whether rows of values lie apart in the file."""
    if operand.packing is not None:
        return operand.packing.name.endswith(".qweight")
    return is_transposed(operand.tensor)


def _grain(operand: Operand) -> int:
    """How many rows of values are unpacked together at least."""
    if operand.packing is not None:
        return operand.packing.grain
    return 1 if operand.layout is None else CODINGS[operand.layout].rows


def _is_elementwise(operand: Operand) -> bool:
    """Whether values can be had one by one, in the order of the file."""
    if operand.packing is not None or is_transposed(operand.tensor):
        return False
    return operand.layout is None or (operand.layout == "fp8" and not operand.smoothed)


def _opened(
    reader: TensorReader,
    scheme: SchemeEvidence,
    operand: Operand,
    flat: bool,
) -> Opened:
    shard = next(s for s in scheme.checkpoint.shards if s.name == operand.shard)
    if operand.packing is not None:
        packed = open_rows(operand.packing, reader)
        return Opened(
            operand.tensor.dtype, None, packed.stored, packed.values, scales=packed.scales
        )
    rows = (reader.flat_of if flat else reader.rows_of)(shard, operand.tensor)
    if operand.layout is None:
        return Opened(operand.tensor.dtype, None, rows.read, _plain(operand))
    layout, scales = operand.layout, reader.scales(scheme, operand.module)
    rate = CODINGS[layout].rows

    def read(first: int, stop: int) -> Array:
        return rows.read(first // rate, -(-stop // rate))

    def values(stored: Array, first: int) -> Array:
        return dequantise(layout, stored, scales, first // rate)

    return Opened(
        operand.tensor.dtype,
        layout,
        read,
        values,
        lambda stored: at_their_extreme(layout, stored),
    )


def _plain(operand: Operand) -> Callable[[Array, int], Array]:
    dtype = operand.tensor.dtype
    if dtype not in STORED:
        raise KeyError(dtype)
    if dtype == "F8_E4M3":
        return lambda stored, first: decode_e4m3(stored)
    if dtype == "F8_E8M0" or (dtype == "U8" and operand.name.endswith("_scale")):
        return lambda stored, first: decode(E8M0, stored)
    if dtype == "F16":
        return lambda stored, first: _from_half(stored)
    if dtype == "I32":
        return lambda stored, first: stored.astype(np.float64)
    return lambda stored, first: stored


def _acting(side: Opened, ratio: F32 | None, gains: F32 | None, gain: Gain | None) -> Opened:
    """B's weight as it acts in A's place: behind its own norm, in front of what undoes it."""
    if ratio is None and gains is None:
        return side

    def values(stored: Array, first: int) -> Array:
        found = side.values(stored, first).astype(np.float32)
        with np.errstate(all="ignore"):
            if ratio is not None:
                found *= ratio
            if gains is not None and gain is not None and gain.along == "columns":
                found *= gains
            elif gains is not None:
                found /= gains[first : first + len(found), None]
        return found

    return replace(side, values=values)


def _ratio(reader: TensorReader, a: SchemeEvidence, b: SchemeEvidence, fold: Fold) -> F32:
    """What B's norm multiplies each input by, over what A's does, float32 [I].

    1 where that says nothing, because A's is zero or one of the two is not finite.
    """
    configs = (a.checkpoint.config, b.checkpoint.config)
    shift = any(config is not None and norms_add_one(config.architectures) for config in configs)
    norms = [_whole(reader, a, fold.a) + shift, _whole(reader, b, fold.b) + shift]
    with np.errstate(all="ignore"):
        return _finite(norms[1] / norms[0])


def _gains(reader: TensorReader, a: SchemeEvidence, b: SchemeEvidence, gain: Gain) -> F32:
    """By what each row of B's linear is A's, in the sense of least squares, float32 [O]."""
    ratio = None if gain.fold is None else _ratio(reader, a, b, gain.fold)
    one = _opened(reader, a, gain.a, False)
    other = _acting(_opened(reader, b, gain.b, False), ratio, None, None)
    rows, columns = gain.a.shape
    step = max(2, CHUNK // max(1, columns) // 2 * 2)
    found = np.ones(rows, np.float64)
    for at in range(0, rows, step):
        end = min(at + step, rows)
        x = one.values(one.stored(at, end), at).astype(np.float64)
        y = other.values(other.stored(at, end), at).astype(np.float64)
        with np.errstate(all="ignore"):
            found[at:end] = (x * y).sum(axis=1) / (x * x).sum(axis=1)
    gains = _finite(found)
    gains[gains == 0] = 1  # nothing undoes a row of zeros
    return gains


def _finite(factors: NDArray[np.float64]) -> F32:
    with np.errstate(all="ignore"):
        found = factors.astype(np.float32)
    found[~np.isfinite(found)] = 1
    return found


def _whole(reader: TensorReader, scheme: SchemeEvidence, operand: Operand) -> NDArray[np.float64]:
    opened = _opened(reader, scheme, operand, True)
    stored = opened.stored(0, math.prod(operand.shape))
    return opened.values(stored, 0).astype(np.float64).reshape(-1)


def _floats(side: Opened, stored: Array, at: int, room: F32, bf16: bool = False) -> Array:
    """The values of stored rows as one contiguous row of float32, or as they are where float32
    has not the bits for them, or with `bf16` where they are BF16. Float32 is never the stored
    rows themselves: whoever asked may write over it."""
    values = side.values(stored, at)
    if bf16 and values.dtype == _BF16 and values.flags.c_contiguous:
        return values.reshape(-1)
    own = values is not stored and values.flags.c_contiguous
    if values.dtype.itemsize == 8 or (own and values.dtype == np.float32):
        return values.reshape(-1)
    out = room[: values.size] if values.size <= room.size else np.empty(values.size, np.float32)
    np.copyto(out.reshape(values.shape), values, casting="unsafe")
    return out


def _from_half(stored: Array) -> Array:
    """F16 to float32, by moving its fields: numpy's own cast takes five times as long."""
    halves = stored.view(np.int16)
    if (halves & 0x7FFF).max(initial=0) >= 0x7C00:  # infinities and NaN
        return stored.astype(np.float32)
    wide = halves.astype(np.int32)
    wide <<= 13
    wide &= _HALF_FIELDS
    values = wide.view(np.float32)
    values *= _HALF_BIAS
    return values


def _same_bytes(a: Array, b: Array) -> bool:
    # Not by memoryview, which compares item by item: forty times as long. The beginning first:
    # where everything differs, it tells.
    a, b = bits(a).reshape(-1), bits(b).reshape(-1)
    return bool(np.array_equal(a[:_GLANCE], b[:_GLANCE]) and np.array_equal(a, b))
