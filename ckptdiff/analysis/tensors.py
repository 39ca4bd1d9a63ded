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
from ckptdiff.records.checkpoint import Shard
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
        tensor = shard.tensors[name]
        shape = tensor.shape or (1,)
        return self._rows(shard, name, shape[0], math.prod(shape[1:]), elements)

    def flat(self, shard: Shard, name: str) -> Rows:
        """A tensor of any shape as rows of one element, in the order of the file."""
        return self._rows(shard, name, math.prod(shard.tensors[name].shape), 1, CHUNK_ELEMENTS)

    def array(self, shard: Shard, name: str) -> Array:
        """A whole tensor in its own shape: for scales, not for weights."""
        tensor = shard.tensors[name]
        data = read_range(self._fd(shard), _start(shard, name), tensor.nbytes)
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
        return self._fd(shard), _start(shard, name)

    def confirm(self, *shards: Shard) -> None:
        """Raise `Unreadable` when one of the shards is not what it was when it was opened."""
        for shard in shards:
            if identity(self._fd(shard)) != shard.identity:
                raise Unreadable(CHANGED)

    def _rows(self, shard: Shard, name: str, count: int, columns: int, elements: int) -> Rows:
        dtype = STORED[shard.tensors[name].dtype]
        fd, start, width = self._fd(shard), _start(shard, name), columns * dtype.itemsize

        def read(first: int, stop: int) -> Array:
            array = np.empty((stop - first, columns), dtype)
            read_into(fd, start + first * width, array)
            return array

        return Rows(count, columns, read, elements)

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


def _start(shard: Shard, name: str) -> int:
    assert shard.header is not None
    return shard.header.data_start + shard.tensors[name].data_offsets[0]
