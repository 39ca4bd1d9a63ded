"""What the safetensors format fixes: its dtypes, sizes, and the frame of a header.

Values are not decoded here: quantization arithmetic belongs to `ckptdiff.quant`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

PREFIX = 8
"""Bytes before the header: its length, a little-endian 64-bit integer."""

METADATA = "__metadata__"
"""The one key of a header that is not a tensor."""

U64 = 1 << 64
"""One more than the largest number that the format can hold."""

BITS: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 8,
        "F4": 4,  # E2M1, two elements a byte
        "F6_E2M3": 6,
        "F6_E3M2": 6,
        "U8": 8,
        "I8": 8,
        "F8_E4M3": 8,
        "F8_E5M2": 8,
        "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8,
        "U16": 16,
        "I16": 16,
        "F16": 16,
        "BF16": 16,
        "U32": 32,
        "I32": 32,
        "F32": 32,
        "U64": 64,
        "I64": 64,
        "F64": 64,
        "C64": 64,  # two 32-bit floats
    }
)
"""Bits per element of every dtype, by its name in a header."""


class SizeError(ValueError):
    """A dtype and shape that no tensor can have; the message says why."""


def nbytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes of a dense tensor of logical `shape`.

    Raises `SizeError` for a dtype that the format does not have, a length below zero, when the
    size does not fit 64 bits, and when a sub-byte dtype does not fill its last byte.
    """
    bits = BITS.get(dtype)
    if bits is None:
        raise SizeError(f"unknown dtype {dtype}")
    elements = 1
    for length in shape:
        if length < 0:
            raise SizeError("a dimension is negative")
        elements *= length
        # Dimension by dimension, as the reference library does: [0, 2^40, 2^40] is
        # legal and [2^40, 2^40, 0] is not, though both hold nothing.
        if length >= U64 or elements >= U64:
            raise SizeError("the number of elements does not fit 64 bits")
    total = elements * bits
    if total >= U64:
        raise SizeError("the number of bits does not fit 64 bits")
    if total % 8:
        raise SizeError(f"{elements} elements of {bits} bits do not fill whole bytes")
    return total // 8
