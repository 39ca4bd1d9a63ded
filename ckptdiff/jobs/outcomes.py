"""What is remembered of proofs: outcomes, by the digests of all that they depend on.

Digests and outcomes come from two passes over a file. That both saw the same bytes is certain
only where the file had settled before the first of them began.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields

from ckptdiff.jobs import caching
from ckptdiff.records.checkpoint import Shard
from ckptdiff.records.proof import Outcome, Whole
from ckptdiff.sources.cache import Cache

# Another version of the arithmetic may come to other outcomes.
_VERSION = b"6"
_NAMES = frozenset(field.name for field in fields(Outcome))
_SEQUENCES = ("scale_dialects", "code_dialects", "first")


@dataclass(frozen=True, slots=True)
class Memory:
    """Outcomes of this run, and of earlier ones in `cache` (None: of none).

    `since` is when hashing began, in ns; unless `believe`, earlier ones are not recalled.
    """

    cache: Cache | None
    since: int
    believe: bool = True
    _fresh: dict[bytes, Outcome] = field(default_factory=dict)

    def recall(self, signatures: Mapping[str, bytes]) -> dict[str, Outcome]:
        """The outcomes that are known; `signatures` has what each depends on."""
        found = {key: self._fresh[sign] for key, sign in signatures.items() if sign in self._fresh}
        if self.cache is not None and self.believe:
            strange = {key: sign for key, sign in signatures.items() if key not in found}
            blobs = self.cache.get(map(_key, strange.values()))
            for key, sign in strange.items():
                if (blob := blobs.get(_key(sign))) is not None:
                    found[key] = _decode(blob)
        return found

    def remember(
        self,
        signatures: Mapping[str, bytes],
        outcomes: Mapping[str, Outcome],
        shards: Mapping[str, Iterable[Shard]],
    ) -> None:
        """Store outcomes that are known, of files that have settled."""
        sure = {
            signatures[key]: outcome
            for key, outcome in outcomes.items()
            if key in signatures
            and outcome.status != "unknown"
            and all(caching.is_settled(shard, self.since) for shard in shards[key])
        }
        self._fresh.update(sure)
        if self.cache is not None:
            self.cache.put({_key(sign): _encode(outcome) for sign, outcome in sure.items()})


def _key(signature: bytes) -> bytes:
    return b"proof" + _VERSION + signature


def _encode(outcome: Outcome) -> bytes:
    values = {name: value for name, value in asdict(outcome).items() if name in _NAMES}
    return json.dumps(values).encode()


def _decode(blob: bytes) -> Outcome:
    values = json.loads(blob)
    for name in _SEQUENCES:
        values[name] = None if values[name] is None else tuple(values[name])
    whole = values.pop("whole")
    return Outcome(**values, whole=None if whole is None else Whole(**whole))
