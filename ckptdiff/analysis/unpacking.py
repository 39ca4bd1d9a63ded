"""The rows of weights that other exporters than ModelOpt packed, read and unpacked some at a time.

The arithmetic is in `quant`. Which format a weight has, and whether what lies beside it can belong
to it, is found out in `packings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ckptdiff.analysis.packings import Format, Packing
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.quant import awq, compressed, deepseek, fp8, gpt_oss, gptq
from ckptdiff.quant.arrays import F32, Array, Scales

# A transposed matrix that is read at once: its columns are many short pieces of the file.
_SMALL = 1 << 25


# (stored, number of its first row) -> float32 rows of the weight.
Values = Callable[[Array, int], F32]


@dataclass(frozen=True, slots=True)
class PackedRows:
    """`stored(first, stop)` gives what is stored of rows [first, stop), `values(stored, first)`
    the float32 rows that it stands for. `scales`: the bytes of one expert's, else none."""

    stored: Callable[[int, int], Array]
    values: Values
    scales: bytes = b""


def open_rows(packing: Packing, reader: TensorReader) -> PackedRows:
    """The rows of a packed weight. Raises `Unreadable`, `KeyError` for a dtype that no format
    uses, and, when values are asked for, `MisfitError`."""
    if packing.format == "gpt-oss":
        return _gpt_oss(packing, reader)
    values = _VALUES[packing.format](packing, reader)
    if packing.format in _BY_COLUMN:
        return PackedRows(_columns(packing, reader), values)
    return PackedRows(reader.rows(packing.shard, packing.name).read, values)


def _scale_inv(packing: Packing, reader: TensorReader) -> Values:
    scale, block = packing.read(reader, "weight_scale_inv"), packing.block or fp8.BLOCK
    if scale.size == 1:  # one for the whole weight
        return lambda codes, first: fp8.dequantise(codes, Scales(scale))
    return lambda codes, first: deepseek.dequantise(codes, scale, first, block)


def _float(packing: Packing, reader: TensorReader) -> Values:
    scale = packing.read(reader, "weight_scale")
    return lambda codes, first: compressed.dequantise_float(codes, scale, first, packing.block)


def _int(packing: Packing, reader: TensorReader) -> Values:
    scale = packing.read(reader, "weight_scale")
    zero = packing.optional(reader, "weight_zero_point")
    order = packing.optional(reader, "weight_g_idx")
    return lambda codes, first: compressed.dequantise_int(codes, scale, zero, first, order)


def _packed(packing: Packing, reader: TensorReader) -> Values:
    scale = packing.read(reader, "weight_scale")
    zero = packing.optional(reader, "weight_zero_point")
    order = packing.optional(reader, "weight_g_idx")
    return lambda words, first: compressed.dequantise_packed(
        words, packing.shape[1], packing.bits, scale, zero, order, first
    )


def _nvfp4(packing: Packing, reader: TensorReader) -> Values:
    scale = packing.read(reader, "weight_scale")
    whole = packing.read(reader, "weight_global_scale")
    return lambda codes, first: compressed.dequantise_nvfp4(codes, scale, whole, first)


def _gptq(packing: Packing, reader: TensorReader) -> Values:
    zeros, scales = packing.read(reader, "qzeros"), packing.read(reader, "scales")
    order = packing.optional(reader, "g_idx")
    return lambda words, first: gptq.dequantise(
        words, zeros, scales, order, packing.bits, first, packing.v2
    )


def _awq(packing: Packing, reader: TensorReader) -> Values:
    zeros, scales = packing.read(reader, "qzeros"), packing.read(reader, "scales")
    return lambda words, first: awq.dequantise(words, zeros, scales, first // awq.PER_WORD)


def _columns(packing: Packing, reader: TensorReader) -> Callable[[int, int], Array]:
    """Columns of the stored matrix, for rows of the weight."""
    height, width = packing.shard.tensors[packing.name].shape
    whole = reader.flat(packing.shard, packing.name)
    small = None
    if packing.shard.tensors[packing.name].nbytes <= _SMALL:
        small = reader.array(packing.shard, packing.name)

    def stored(first: int, stop: int) -> Array:
        here, there = first // packing.grain, -(-stop // packing.grain)
        if small is not None:
            return small[:, here:there]
        parts = [whole.read(row * width + here, row * width + there) for row in range(height)]
        if not parts:
            return np.empty((0, there - here), np.int32)
        return np.concatenate(parts).reshape(height, there - here)

    return stored


def _gpt_oss(packing: Packing, reader: TensorReader) -> PackedRows:
    _, outputs, groups, width = packing.shard.tensors[packing.name].shape
    size, start = groups * width, (packing.expert or 0) * outputs
    codes = reader.flat(packing.shard, packing.name)
    name, shard = packing.beside["scales"]
    fine = reader.flat(shard, name).read(start * groups, (start + outputs) * groups)
    scales = fine.reshape(outputs, groups)

    def stored(first: int, stop: int) -> Array:
        part = codes.read((start + first) * size, (start + stop) * size)
        return part.reshape(stop - first, size)

    def values(part: Array, first: int) -> F32:
        return gpt_oss.dequantise(part.reshape(-1, groups, width), scales, first)

    return PackedRows(stored, values, scales.tobytes())


# How what is stored becomes values, for all formats but gpt-oss, which has many weights a tensor.
_VALUES: Mapping[Format, Callable[[Packing, TensorReader], Values]] = {
    "float-quantized": _float,
    "int-quantized": _int,
    "pack-quantized": _packed,
    "nvfp4-pack-quantized": _nvfp4,
    "fp8-scale-inv": _scale_inv,
    "gptq": _gptq,
    "awq": _awq,
}
# Stored with a column for each row of the weight.
_BY_COLUMN: tuple[Format, ...] = ("gptq", "awq")
