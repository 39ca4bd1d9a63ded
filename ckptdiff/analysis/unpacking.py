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


@dataclass(frozen=True, slots=True)
class PackedRows:
    """`stored(first, stop)` gives what is stored of rows [first, stop), `values(stored, first)`
    the float32 rows that it stands for. `scales`: the bytes of one expert's, else none."""

    stored: Callable[[int, int], Array]
    values: Callable[[Array, int], F32]
    scales: bytes = b""


def open_rows(packing: Packing, reader: TensorReader) -> PackedRows:
    """The rows of a packed weight. Raises `Unreadable`, `KeyError` for a dtype that no format
    uses, and, when values are asked for, `MisfitError`."""
    return _OPEN[packing.format](packing, reader)


def _by_row(
    packing: Packing, reader: TensorReader, values: Callable[[Array, int], F32]
) -> PackedRows:
    """Stored rows are rows of the weight."""
    return PackedRows(reader.rows(packing.shard, packing.name).read, values)


def _open_scale_inv(packing: Packing, reader: TensorReader) -> PackedRows:
    scale, block = packing.read(reader, "weight_scale_inv"), packing.block or fp8.BLOCK
    if scale.size == 1:  # one for the whole weight
        return _by_row(packing, reader, lambda codes, first: fp8.dequantise(codes, Scales(scale)))
    return _by_row(
        packing, reader, lambda codes, first: deepseek.dequantise(codes, scale, first, block)
    )


def _open_float(packing: Packing, reader: TensorReader) -> PackedRows:
    scale = packing.read(reader, "weight_scale")
    return _by_row(
        packing,
        reader,
        lambda codes, first: compressed.dequantise_float(codes, scale, first, packing.block),
    )


def _open_int(packing: Packing, reader: TensorReader) -> PackedRows:
    scale = packing.read(reader, "weight_scale")
    zero = packing.optional(reader, "weight_zero_point")
    return _by_row(
        packing,
        reader,
        lambda codes, first: compressed.dequantise_int(codes, scale, zero, first),
    )


def _open_packed(packing: Packing, reader: TensorReader) -> PackedRows:
    scale = packing.read(reader, "weight_scale")
    zero = packing.optional(reader, "weight_zero_point")
    order = packing.optional(reader, "weight_g_idx")
    return _by_row(
        packing,
        reader,
        lambda words, first: compressed.dequantise_packed(
            words, packing.shape[1], packing.bits, scale, zero, order, first
        ),
    )


def _open_nvfp4(packing: Packing, reader: TensorReader) -> PackedRows:
    scale = packing.read(reader, "weight_scale")
    whole = packing.read(reader, "weight_global_scale")
    return _by_row(
        packing,
        reader,
        lambda codes, first: compressed.dequantise_nvfp4(codes, scale, whole, first),
    )


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


def _open_awq(packing: Packing, reader: TensorReader) -> PackedRows:
    zeros, scales = packing.read(reader, "qzeros"), packing.read(reader, "scales")

    def values(words: Array, first: int) -> F32:
        return awq.dequantise(words, zeros, scales, first // awq.PER_WORD)

    return PackedRows(_columns(packing, reader), values)


def _open_gptq(packing: Packing, reader: TensorReader) -> PackedRows:
    zeros, scales = packing.read(reader, "qzeros"), packing.read(reader, "scales")
    order = packing.optional(reader, "g_idx")

    def values(words: Array, first: int) -> F32:
        return gptq.dequantise(words, zeros, scales, order, packing.bits, first, packing.v2)

    return PackedRows(_columns(packing, reader), values)


def _open_gpt_oss(packing: Packing, reader: TensorReader) -> PackedRows:
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


_OPEN: Mapping[Format, Callable[[Packing, TensorReader], PackedRows]] = {
    "float-quantized": _open_float,
    "int-quantized": _open_int,
    "pack-quantized": _open_packed,
    "nvfp4-pack-quantized": _open_nvfp4,
    "fp8-scale-inv": _open_scale_inv,
    "gptq": _open_gptq,
    "awq": _open_awq,
    "gpt-oss": _open_gpt_oss,
}
