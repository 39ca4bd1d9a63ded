"""The digests of whole files from those of the units that threads read, in whichever order.

What a unit is, and how it is read, is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xxhash

from ckptdiff.analysis.hashing.scanning import merged
from ckptdiff.records.checkpoint import FileIdentity
from ckptdiff.records.digests import Flaws, ShardDigests


@dataclass(frozen=True, slots=True)
class UnitDigests:
    """Digests of whole tensors by name, and of spans by (name, number); flaws by name."""

    tensors: Mapping[str, bytes]
    spans: Mapping[tuple[str, int], bytes]
    flaws: Mapping[str, Flaws]


class Joining:
    """Takes the units of files; `whole` has the digests of each file of which all came, or why
    it counts as unread. `units` says how many each has. Any thread may add."""

    def __init__(self, units: Mapping[FileIdentity, int]) -> None:
        self._left = dict(units)
        self._parts: dict[FileIdentity, list[UnitDigests | str]] = {}
        self._lock = threading.Lock()
        self.whole = {known: joined(()) for known, count in units.items() if not count}

    def add(self, known: FileIdentity, part: UnitDigests | str) -> bool:
        """Add a unit of a file; True when it was the last one."""
        with self._lock:
            self._parts.setdefault(known, []).append(part)
            self._left[known] -= 1
            if self._left[known]:
                return False
            parts = self._parts.pop(known)
        self.whole[known] = joined(parts)
        return True


def joined(parts: Sequence[UnitDigests | str]) -> ShardDigests | str:
    """The digests of one file from those of its units in any order, or why it counts as
    unread."""
    if reasons := [part for part in parts if isinstance(part, str)]:
        return min(reasons)  # the same one, whichever thread was first
    tensors: dict[str, bytes] = {}
    spans: dict[str, dict[int, bytes]] = {}
    flaws: dict[str, Flaws] = {}
    for part in parts:
        assert not isinstance(part, str)
        tensors.update(part.tensors)
        for name, found in part.flaws.items():
            flaws[name] = merged(flaws.get(name), found)
        for (name, number), digest in part.spans.items():
            spans.setdefault(name, {})[number] = digest
    for name, digests in spans.items():
        tensors[name] = xxhash.xxh3_128_digest(b"".join(digests[n] for n in sorted(digests)))
    return ShardDigests(tensors, flaws=flaws)
