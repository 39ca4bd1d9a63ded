"""Reads tensors of a checkpoint in parts, and dequantises them on the way.

A weight may be larger than memory: rows are read as they are asked for, from files whose
identity is that of the headers. What the numbers are for must not move in here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

import numpy as np

from ckptdiff.quant.arrays import CHUNK_ELEMENTS, STORED, Array, Rows, Scales, as_array
from ckptdiff.quant.registry import dequantised
from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName
from ckptdiff.sources.local import (
    CHANGED,
    Unreadable,
    identity,
    open_regular,
    read_range,
    reason_of,
)


class TensorReader:
    """Open shards. Use it in a `with` block, which closes them; several threads may read.

    Every method raises `Unreadable` when a file cannot be read or is not the one whose
    header was read any more, and `KeyError` for a dtype that has no numbers in numpy.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def rows(self, shard: Shard, name: str, elements: int = CHUNK_ELEMENTS) -> Rows:
        """A tensor [O, …] as O rows, the other dimensions in one; [n] is n rows of one."""
        return self.rows_of(shard, shard.tensors[name], elements)

    def rows_of(self, shard: Shard, tensor: Tensor, elements: int = CHUNK_ELEMENTS) -> Rows:
        """`rows` of a tensor of a shard, or of a part of one."""
        shape = tensor.shape or (1,)
        return self._rows(shard, tensor, shape[0], math.prod(shape[1:]), elements)

    def flat(self, shard: Shard, name: str) -> Rows:
        """A tensor of any shape as rows of one element, in the order of the file."""
        return self.flat_of(shard, shard.tensors[name])

    def flat_of(self, shard: Shard, tensor: Tensor) -> Rows:
        """`flat` of a tensor of a shard, or of a part of one that is not transposed."""
        return self._rows(shard, tensor, math.prod(tensor.shape), 1, CHUNK_ELEMENTS)

    def serial(self, shard: Shard, name: str) -> Rows:
        """Rows of any length that are, one behind the other, the elements of a tensor."""
        tensor = shard.tensors[name]
        return (self.rows_of if is_transposed(tensor) else self.flat_of)(shard, tensor)

    def array(self, shard: Shard, name: str) -> Array:
        """A whole tensor in its own shape: for scales, not for weights."""
        tensor = shard.tensors[name]
        data = read_range(self._fd(shard), _start(shard, tensor), tensor.nbytes)
        if len(data) != tensor.nbytes:
            raise Unreadable("ended before its data did")
        return as_array(data, tensor.dtype, tensor.shape)

    def scales(self, scheme: SchemeEvidence, module: str) -> Scales:
        """The scales of a quantized module, by its name on disk."""
        beside = scheme.scales[module]
        shards = {shard.name: shard for shard in scheme.checkpoint.shards}

        def read(suffix: str) -> Array | None:
            scale = beside.get(suffix)  # type: ignore[call-overload]
            return None if scale is None else self.array(shards[scale.shard], scale.name)

        weight_scale = read("weight_scale")
        assert weight_scale is not None  # a layout without it has no name
        return Scales(weight_scale, read("weight_scale_2"), read("pre_quant_scale"))

    def place(self, shard: Shard, name: str) -> tuple[int, int]:
        """(file descriptor, byte offset) of a tensor, for whoever copies it as it is."""
        return self._fd(shard), _start(shard, shard.tensors[name])

    def confirm(self, *shards: Shard) -> None:
        """Raise `Unreadable` when one of the shards is not what it was when it was opened."""
        for shard in shards:
            if identity(self._fd(shard)) != shard.identity:
                raise Unreadable(CHANGED)

    def _rows(self, shard: Shard, tensor: Tensor, count: int, columns: int, elements: int) -> Rows:
        dtype = STORED[tensor.dtype]
        fd, start, width = self._fd(shard), _start(shard, tensor), columns * dtype.itemsize
        pitch = tensor.part.pitch * dtype.itemsize if tensor.part else 0

        def read(first: int, stop: int) -> Array:
            array = np.empty((stop - first, columns), dtype)
            read_into(fd, start + first * width, array)
            return array

        def gather(first: int, stop: int) -> Array:
            array = np.empty((columns, stop - first), dtype)
            for number, column in enumerate(array):
                read_into(fd, start + number * pitch + first * dtype.itemsize, column)
            return np.ascontiguousarray(array.T)

        return Rows(count, columns, gather if pitch else read, elements)

    def _fd(self, shard: Shard) -> int:
        if shard.path not in self._open:
            file = self._files.enter_context(open_regular(shard.path))
            if file.identity != shard.identity:
                raise Unreadable(CHANGED)
            self._open[shard.path] = file.fd
        return self._open[shard.path]


def read_into(fd: int, offset: int, array: Array) -> None:
    """Fill a contiguous `array` from byte `offset` of the file on. Raises `Unreadable`."""
    left = array.view(np.uint8).reshape(-1).data
    while left:
        try:
            count = os.preadv(fd, [left], offset)
        except OSError as error:
            raise Unreadable(reason_of(error)) from error
        if not count:
            raise Unreadable("ended before its data did")
        left, offset = left[count:], offset + count


def dequantised_rows(layout: LayoutName, stored: Rows, scales: Scales) -> Iterator[Array]:
    """The float32 rows [R, I] of a quantized weight, chunk by chunk from the first one on."""
    for _, values in dequantised(layout, stored, scales):
        yield values


def is_transposed(tensor: Tensor) -> bool:
    """Whether the elements of a row lie apart in the file."""
    return tensor.part is not None and tensor.part.transposed


def _start(shard: Shard, tensor: Tensor) -> int:
    assert shard.header is not None
    return shard.header.data_start + tensor.data_offsets[0]
