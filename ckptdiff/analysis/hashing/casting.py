"""Digests of tensors as they would be in another dtype, or of parts of tensors as they are.

An export stores BF16 where its base may hold float32: the base is cast, rounding to nearest
even as every framework does, and the bytes are hashed under the contract's rule, so that
"the same values" stays one comparison of digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np

from ckptdiff.analysis.hashing.spans import SpanHasher
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.events import CancelToken
from ckptdiff.quant.arrays import Rows
from ckptdiff.records.checkpoint import Shard

NUMPY = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}


def cast_digest(chunks: Iterable[bytes], source: str, target: str) -> bytes:
    """The digest (16 bytes) of a tensor's bytes after casting from `source` to `target`.

    Both are float dtypes of safetensors, or the same. `chunks` are consecutive parts of the
    tensor, each of whole elements. Values that overflow become infinities, as in a plain cast.
    """
    hasher = SpanHasher()
    for chunk in chunks:
        if source == target:
            hasher.update(memoryview(chunk))
            continue
        with np.errstate(all="ignore"):
            values = np.frombuffer(chunk, NUMPY[source]).astype(NUMPY[target])
        hasher.update(memoryview(values.view(np.uint8).data))
    return hasher.digest()


def cast_tensor(shard: Shard, name: str, target: str, cancel: CancelToken) -> bytes:
    """The digest of one tensor of `shard` in another float dtype.

    Raises `Unreadable` when the file cannot be read, or is not the one whose header was
    read any more, and `Cancelled`.
    """
    with TensorReader() as reader:
        chunks = _chunks(reader.serial(shard, name), cancel)
        digest = cast_digest(chunks, shard.tensors[name].dtype, target)
        reader.confirm(shard)
    return digest


def _chunks(rows: Rows, cancel: CancelToken) -> Iterator[bytes]:
    for _, chunk in rows.chunks():
        cancel.raise_if_cancelled()
        yield chunk.tobytes()
