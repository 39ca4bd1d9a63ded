"""What the arithmetic works on: arrays of rows, the scales beside them, and what they may be.

Values of 8 bits and less are *codes* here, arrays of uint8 (int8 for INT8), whatever float
they stand for: numpy has no dtype for them, and every conversion goes through a table anyway.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Codes = NDArray[np.uint8]
F32 = NDArray[np.float32]

# Small enough for its temporaries to stay near the processor, large enough for threads not to
# wait for each other: every operation gives up the interpreter's lock and asks for it again. Half
# of it is as fast on 2 processors and takes 1.4 times as long on 16.
CHUNK_ELEMENTS = 1 << 19
# More threads than this only wait for that lock: on 16 processors 16 take twice as long as 6.
MOST_THREADS = 6
_KEPT_BYTES = 1 << 24

# The numpy dtype of a tensor's bytes, by the name of its dtype in a header.
STORED = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}


def threads_for_arithmetic(jobs: int | None) -> int:
    """How many threads to start: `jobs`, else one a processor as far as that helps.

    Has glibc keep the memory of temporaries for the next ones, too, which it learns from a
    block of their size that is freed: it would return each to the kernel, and zeroing what
    comes back takes as long as the work.
    """
    np.empty(_KEPT_BYTES, np.uint8)
    return jobs or min(MOST_THREADS, os.cpu_count() or 1)


class MisfitError(ValueError):
    """Codes and scales that do not go together; the message says in which way."""


@dataclass(frozen=True, slots=True)
class Scales:
    """The scales of one weight, whole, as they are stored.

    `weight_scale` is float32, or uint8 codes of F8_E4M3 (NVFP4) or E8M0 (MX).
    `weight_scale_2` is one float32; `pre_quant_scale` [I] is BF16, F16 or F32.
    """

    weight_scale: Array
    weight_scale_2: Array | None = None
    pre_quant_scale: Array | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """A matrix that is read a few rows at a time.

    `read(first, stop)` gives rows [first, stop) as an array [stop - first, columns]; it is
    called with consecutive ranges, and again from 0 by work that needs two passes. `elements`
    is how many are wanted at a time.
    """

    count: int
    columns: int
    read: Callable[[int, int], Array]
    elements: int = CHUNK_ELEMENTS

    def chunks(self, share: int = 1) -> Iterator[tuple[int, Array]]:
        """(first row, rows) of about `elements / share` elements, at least a row each."""
        step = max(1, self.elements // share // max(1, self.columns))
        for first in range(0, self.count, step):
            yield first, self.read(first, min(first + step, self.count))


def as_array(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> Array:
    """A tensor's bytes as an array; `dtype` is the header's name of it.

    Raises `KeyError` for a dtype that no format uses, `ValueError` when the sizes disagree.
    """
    return np.frombuffer(data, STORED[dtype]).reshape(shape)


def scalar(scale: Array) -> np.float32:
    """The one value of a scale that stands for a whole tensor, of shape [] or all ones."""
    if scale.size != 1:
        raise MisfitError(f"one scale is needed, not {list(scale.shape)}")
    return np.float32(scale.reshape(-1)[0])


def per_row(scale: Array, first: int, count: int) -> F32:
    """The scales of rows [first, first + count) as [count, 1], from [O] or [O, 1]."""
    if not scale.ndim or scale.size != len(scale):
        raise MisfitError(f"a scale for each row is needed, not {list(scale.shape)}")
    part = scale.reshape(-1)[first : first + count]
    if len(part) != count:
        raise MisfitError(f"{scale.shape[0]} scales for rows up to {first + count}")
    return part.astype(np.float32)[:, None]


def per_group(scale: Array, first: int, count: int) -> Array:
    """Rows [first, first + count) of a scale [O, groups]."""
    if scale.ndim != 2 or first + count > scale.shape[0]:
        raise MisfitError(f"scales of {list(scale.shape)} for rows up to {first + count}")
    return scale[first : first + count]


def spread(scale: F32, group: int, columns: int) -> F32:
    """[R, G] -> [R, columns]: each scale for its `group` columns, the last one perhaps less."""
    if scale.shape[1] != blocks(columns, group):
        raise MisfitError(f"{scale.shape[1]} scales a row for {columns} columns in {group}s")
    return np.repeat(scale, group, axis=1)[:, :columns]


def smoothed(values: F32, pre_quant_scale: Array | None) -> F32:
    """`values` times the factor [I] that the layer puts on its input instead (in place)."""
    if pre_quant_scale is not None:
        if pre_quant_scale.size != values.shape[1]:
            raise MisfitError(
                f"pre_quant_scale of {list(pre_quant_scale.shape)} for {values.shape[1]} columns"
            )
        values *= pre_quant_scale.reshape(-1).astype(np.float32)
    return values


def blocks(length: int, block: int) -> int:
    """How many blocks cover `length`, the last one perhaps in part."""
    return math.ceil(length / block) if length else 0
