"""What a parameter is to hold: its shape, its key, and its rows, read when they are asked for.

Values with equal keys are equal, so that whoever has one loaded need not read the other. What a
checkpoint's tensors mean is decided in `contents` and `foreign`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from shlex import quote

import numpy as np
import torch

from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.errors import UsageError
from ckptdiff.quant.arrays import Array
from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.evidence import SchemeEvidence

TORCH = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}
Chunks = Iterator[tuple[int, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Value:
    """What a parameter is to hold: `chunks(reader, elements, device)` gives (first row, rows) of
    a tensor of `shape`, about `elements` at a time, in any dtype and on any device; `device` is
    where they will be needed. `key` None: it is not known whether it equals another value.
    `tensor` is the stored tensor that errors are about."""

    shape: tuple[int, ...]
    key: Hashable | None
    tensor: str
    shard: Shard
    chunks: Callable[[TensorReader, int, torch.device], Chunks]


def plain(scheme: SchemeEvidence, name: str, tensor: Tensor, shard: Shard) -> Value:
    """A tensor that is stored as it is used."""
    if tensor.dtype not in TORCH:
        raise odd(scheme, name, f"is {tensor.dtype}, which no model holds")
    digest = scheme.digests.get(name)
    return Value(
        shape=tensor.shape,
        key=None if digest is None else (tensor.dtype, digest),
        tensor=name,
        shard=shard,
        chunks=partial(_stored, shard, name),
    )


def _stored(
    shard: Shard, name: str, reader: TensorReader, elements: int, device: torch.device
) -> Chunks:
    """The rows of a tensor as they are stored."""
    dtype, shape = shard.tensors[name].dtype, shard.tensors[name].shape
    for first, rows in reader.rows(shard, name, elements).chunks():
        yield first, as_torch(rows, dtype).reshape(-1, *shape[1:])


def as_torch(array: Array, dtype: str) -> torch.Tensor:
    """An array of stored numbers as a tensor on the same memory; `dtype` is the header's."""
    kind = TORCH[dtype]
    width = array.dtype.itemsize
    plain = array.view({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[width])
    return torch.from_numpy(plain).view(kind)


def odd(scheme: SchemeEvidence, tensor: str, what: str) -> UsageError:
    """The error that names a tensor which cannot be understood."""
    return UsageError(
        f"{scheme.checkpoint.path} cannot be loaded: {tensor} {what}",
        f"`ckptdiff check {quote(scheme.checkpoint.path)}` says what is wrong with it.",
    )
