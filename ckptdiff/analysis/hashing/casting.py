"""Digests of tensors as they would be in another dtype.

An export stores BF16 where its base may hold float32: the base is cast, rounding to nearest
even as every framework does, and the bytes are hashed under the contract's rule, so that
"the same values" stays one comparison of digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np

from ckptdiff.analysis.hashing.spans import SpanHasher
from ckptdiff.events import CancelToken
from ckptdiff.records.checkpoint import FileIdentity, Shard
from ckptdiff.sources.local import CHANGED, Unreadable, identity, open_regular, read_range

NUMPY = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
# A multiple of every element size, small enough to stay in the processor's cache.
_CHUNK_BYTES = 1 << 20


def cast_digest(chunks: Iterable[bytes], source: str, target: str) -> bytes:
    """The digest (16 bytes) of a tensor's bytes after casting from `source` to `target`.

    Both are float dtypes of safetensors. `chunks` are consecutive parts of the tensor, each
    of whole elements. Values that overflow become infinities, as in a plain cast.
    """
    hasher = SpanHasher()
    for chunk in chunks:
        with np.errstate(all="ignore"):
            values = np.frombuffer(chunk, NUMPY[source]).astype(NUMPY[target])
        hasher.update(memoryview(values.view(np.uint8).data))
    return hasher.digest()


def cast_tensor(shard: Shard, name: str, target: str, cancel: CancelToken) -> bytes:
    """The digest of one tensor of `shard` in another float dtype.

    Raises `Unreadable` when the file cannot be read, or is not the one whose header was
    read any more, and `Cancelled`.
    """
    tensor = shard.tensors[name]
    assert shard.header is not None
    start = shard.header.data_start + tensor.data_offsets[0]
    with open_regular(shard.path) as file:
        _require_same(file.identity, shard.identity)
        digest = cast_digest(_chunks(file.fd, start, tensor.nbytes, cancel), tensor.dtype, target)
        _require_same(identity(file.fd), shard.identity)
    return digest


def _chunks(fd: int, start: int, length: int, cancel: CancelToken) -> Iterator[bytes]:
    for offset in range(0, length, _CHUNK_BYTES):
        cancel.raise_if_cancelled()
        wanted = min(_CHUNK_BYTES, length - offset)
        chunk = read_range(fd, start + offset, wanted)
        if len(chunk) < wanted:
            raise Unreadable("ended before its data did")
        yield chunk


def _require_same(now: FileIdentity, before: FileIdentity | None) -> None:
    if now != before:
        raise Unreadable(CHANGED)
