"""`diff`: two checkpoints, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ckptdiff.analysis.differing.alignment import align
from ckptdiff.analysis.differing.deltas import (
    chosen,
    histogram_of,
    kinds_of,
    layers_of,
    row_of,
    sentence_of,
    total_of,
    verdict_of,
)
from ckptdiff.analysis.differing.pairs import Pair
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.packings import packings_of
from ckptdiff.analysis.summary import hidden
from ckptdiff.api.common import StrPath, tool
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.index import INDEX_NAME
from ckptdiff.jobs.differing import compare
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.jobs.reading import read_one
from ckptdiff.records.checkpoint import Checkpoint, Unread
from ckptdiff.records.delta import (
    DIFF_SCHEMA,
    ORDERS,
    STATUSES,
    DeltaStatus,
    DiffOrder,
    DiffReport,
)
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.sources.cache import Cache


def diff(
    a: StrPath,
    b: StrPath,
    *,
    raw: bool = False,
    tensors: str | None = None,
    sort: DiffOrder = "error",
    limit: int | None = None,
    only: Sequence[DeltaStatus] = (),
    cache: bool = True,
    rehash: bool = False,
    jobs: int | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> DiffReport:
    """Compare checkpoint `b` with checkpoint `a`, the reference: what their tensors mean.

    Tensors are aligned by name; quantized weights are dequantised with their scales. Bytes
    are hashed first, as `check` does and with its cache, and values compared only where hashes
    differ. `raw` compares stored codes too. `tensors` (shell style) picks tensors by name or
    key; `sort`, `limit` and `only` (statuses) choose the rows of the report, not its totals.

    Raises `RootError` where there is no checkpoint, `UsageError` for a request that cannot be
    carried out and `Cancelled` when `cancel` is set; never for what a checkpoint contains.
    """
    _require_known(sort, limit, only, jobs)
    cancel = cancel or CancelToken()
    checkpoints = read_one(Path(a)), read_one(Path(b))
    how = Hashing(Cache() if cache else None, rehash, scan=cache, jobs=jobs)
    shards = [shard for checkpoint in checkpoints for shard in checkpoint.shards]
    digests = digest_shards(shards, how, sink=sink, cancel=cancel)
    one, other = (scheme_evidence(checkpoint, digests) for checkpoint in checkpoints)
    aligned = align(one, other, (packings_of(one), packings_of(other)))
    pairs = [pair for pair in aligned if tensors is None or _matches(pair, tensors)]
    if tensors is not None and not pairs:
        names = (name for side in checkpoints for name, _, _ in side.items())
        scales = any(fnmatchcase(name, tensors) for name in names)
        raise UsageError(
            f"no tensor is called {tensors!r}",
            "Scales are a part of the weights that they go with: name those."
            if scales
            else "Names and patterns are case-sensitive.",
        )
    outcomes = compare(one, other, pairs, raw=raw, jobs=jobs, sink=sink, cancel=cancel)
    unread = _unread(str(a), one) + _unread(str(b), other)
    total = total_of(outcomes)
    verdict = verdict_of(total, outcomes, bool(unread))
    rows, left_out = chosen(map(row_of, outcomes), sort, only, limit)
    return DiffReport(
        schema=DIFF_SCHEMA,
        tool=tool(),
        a=str(a),
        b=str(b),
        verdict=verdict,
        sentence=sentence_of(verdict, total, outcomes, part=tensors is not None),
        total=total,
        kinds=kinds_of(outcomes),
        layers=layers_of(outcomes),
        histogram=histogram_of(outcomes),
        tensors=rows,
        left_out=left_out,
        unread=tuple(dict.fromkeys(unread)),
    )


def _matches(pair: Pair, pattern: str) -> bool:
    names = [pair.key, *(side.name for side in (pair.a, pair.b) if side is not None)]
    return any(fnmatchcase(name, pattern) for name in names)


def _unread(path: str, side: SchemeEvidence) -> tuple[Unread, ...]:
    """Files of a checkpoint that were not read, and defects behind which tensors are unknown."""
    checkpoint: Checkpoint = side.checkpoint
    found = [(item.path, item.reason) for item in side.unread]
    found += [(item.path, item.reason) for item in hidden(checkpoint)]
    # What the index promises and no shard holds. One that is in another shard was compared.
    lost = [d for d in checkpoint.all_defects if d.kind == "absent-tensor" and d.actual is None]
    if lost:
        more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        found.append((INDEX_NAME, f"names {lost[0].tensor}{more}: in no shard"))
    return tuple(Unread(f"{path}/{name}", reason) for name, reason in found)


def _require_known(sort: str, limit: int | None, only: Sequence[str], jobs: int | None) -> None:
    if sort not in ORDERS:
        raise UsageError(f"sort is {sort!r}", f"Known are {', '.join(ORDERS)}.")
    if isinstance(only, str):
        raise UsageError("only is a string", f"Give a list: only=[{only!r}].")
    if unknown := sorted(set(only) - set(STATUSES)):
        raise UsageError(f"only has {unknown[0]!r}", f"Known are {', '.join(STATUSES)}.")
    if (limit is not None and limit < 0) or (jobs is not None and jobs < 1):
        raise UsageError("limit and jobs are counts", "limit is 0 or more, jobs 1 or more.")
