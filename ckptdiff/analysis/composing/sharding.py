"""Tensors -> files: names, order, headers and index, as `save_pretrained` writes them.

What the tensors are does not matter here, and nothing is written.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ckptdiff.formats.checkpoint import SINGLE_NAME
from ckptdiff.formats.dtypes import METADATA, PREFIX
from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.records.composition import OutputShard, Piece

SHARD_BYTES = 10_000_000_000
"""The largest file: ModelOpt's `max_shard_size`."""

# The safetensors library writes tensors by dtype, the last of these first, and then by name,
# so that every one of them is aligned.
_ORDER = (
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
    "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64",
    "F64", "I64", "U64",
)  # fmt: skip
_RANK = {dtype: rank for rank, dtype in enumerate(_ORDER)}


def shards_of(
    pieces: Iterable[Piece],
    order: Callable[[Piece], Any],
    limit: int = SHARD_BYTES,
) -> tuple[OutputShard, ...]:
    """`pieces` in files of at most `limit` bytes of data (a larger tensor alone), filled in
    the given order."""
    parts: list[list[Piece]] = []
    filled = limit + 1
    for piece in sorted(pieces, key=order):
        if filled + piece.nbytes > limit:
            parts.append([])
            filled = 0
        parts[-1].append(piece)
        filled += piece.nbytes
    if len(parts) == 1:
        return (_shard(SINGLE_NAME, parts[0]),)
    stem, suffix = SINGLE_NAME.rsplit(".", 1)
    return tuple(
        _shard(f"{stem}-{number:05d}-of-{len(parts):05d}.{suffix}", part)
        for number, part in enumerate(parts, 1)
    )


def index_document(shards: Sequence[OutputShard]) -> bytes:
    """`model.safetensors.index.json` of several shards."""
    pieces = [piece for shard in shards for piece in shard.pieces]
    parameters = (math.prod(p.shape) for p in pieces if scale_suffix(p.name) is None)
    index = {
        "metadata": {
            "total_parameters": sum(parameters),
            "total_size": sum(piece.nbytes for piece in pieces),
        },
        "weight_map": {piece.name: shard.name for shard in shards for piece in shard.pieces},
    }
    return (json.dumps(index, indent=2, sort_keys=True) + "\n").encode("ascii")


def _shard(name: str, pieces: Iterable[Piece]) -> OutputShard:
    ordered = tuple(sorted(pieces, key=lambda piece: (-_RANK[piece.dtype], piece.name)))
    entries: dict[str, Any] = {METADATA: {"format": "pt"}}
    offset = 0
    for piece in ordered:
        entries[piece.name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [offset, offset + piece.nbytes],
        }
        offset += piece.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % PREFIX)
    return OutputShard(name, struct.pack("<Q", len(text)) + text, ordered)
