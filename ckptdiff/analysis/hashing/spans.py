"""The contract's digest of a tensor whose bytes come in parts, in order."""

from __future__ import annotations

import xxhash

from ckptdiff.analysis.hashing.digests import SPAN_BYTES


class SpanHasher:
    """xxh3_128 of all bytes; beyond 256 MiB that of the digests of spans of 256 MiB."""

    def __init__(self) -> None:
        self._spans: list[bytes] = []
        self._hasher = xxhash.xxh3_128()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """More bytes, as a flat view."""
        while data:
            part = data[: SPAN_BYTES - self._filled]
            self._hasher.update(part)
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == SPAN_BYTES:
                self._spans.append(self._hasher.digest())
                self._hasher, self._filled = xxhash.xxh3_128(), 0

    def digest(self) -> bytes:
        """The digest (16 bytes) of what came so far."""
        if not self._spans:
            return self._hasher.digest()
        spans = self._spans + [self._hasher.digest()] * bool(self._filled)
        return spans[0] if len(spans) == 1 else xxhash.xxh3_128_digest(b"".join(spans))
