"""Shards of U8 tensors, and their digests by other means than ours."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from random import Random
from typing import Any

import xxhash

from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard
from ckptdiff.records.checkpoint import Shard

MIB = 1 << 20
ENDLESS = 1 << 40  # bytes of a sparse file that no test can wait for
EMPTY = xxhash.xxh3_128_digest(b"")


def write(path: Path, tensors: Mapping[str, bytes]) -> Shard:
    """A safetensors file of U8 tensors, read back."""
    sparse(path, {name: len(data) for name, data in tensors.items()})
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + length)
        file.write(b"".join(tensors.values()))
    return read(path)


def sparse(path: Path, sizes: Mapping[str, int]) -> Shard:
    """A safetensors file of U8 tensors of zeros that takes no room on the disk."""
    entries, end = {}, 0
    for name, size in sizes.items():
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return read(path)


def read(path: Path) -> Shard:
    shard = read_shard(path.parent, path.name)
    assert shard.header is not None
    return shard


def random_bytes(sizes: Mapping[str, int], seed: int = 0) -> dict[str, bytes]:
    random = Random(seed)
    return {name: random.randbytes(size) for name, size in sizes.items()}


def one_shot(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def xxhsum(path: Path) -> bytes:
    out = subprocess.run(["xxhsum", "-H2", str(path)], check=True, capture_output=True).stdout
    return bytes.fromhex(out.split()[0].decode())


def digests(shard: Shard, **options: Any) -> Mapping[str, bytes]:
    result = hash_shards([shard], **options)[shard.path]
    assert result.unread is None
    return result.digests


def reason(shard: Shard, **options: Any) -> str:
    result = hash_shards([shard], **options)[shard.path]
    assert result.digests == {}
    assert result.unread is not None
    assert result.unread.path == shard.name
    return result.unread.reason


class Inline(Executor):
    """Runs every task while it is submitted, and calls `after` when it is done."""

    def __init__(self, after: Callable[[int], None] = lambda number: None) -> None:
        self.after = after
        self.tasks = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        self.tasks += 1
        self.after(self.tasks)
        return future
