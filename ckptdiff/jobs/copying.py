"""Writes composed shards as a stream: copies, casts and closed forms, hashed on the way.

Memory stays flat whatever the tensors' sizes, and several threads write one file. Every byte
that is copied was hashed from its source, so that what is read back later can be held against
it. Sources are told apart from what they were when their headers were read; nothing here
opens one for writing.

Bytes go through one buffer that stays in the processor's cache, because they have to be
hashed: copy_file_range and a second look at the source took 1.3 to 1.6 times as long (ext4; no
tensor is aligned to blocks, so that nothing could be shared either).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckptdiff.analysis.hashing.spans import SpanHasher
from ckptdiff.analysis.spreading import Watch, spread
from ckptdiff.analysis.tensors import TensorReader, is_transposed, read_into
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.target import STEP_BYTES, Target, created
from ckptdiff.quant.arrays import STORED, Array, Rows, Scales, threads_for_arithmetic
from ckptdiff.quant.dialects import Dialect
from ckptdiff.quant.registry import ClosedForm, closed_form, requantised
from ckptdiff.records.checkpoint import Shard
from ckptdiff.records.composition import Cast, Made, OutputShard, Piece, Stored

STAGE = "write"
_TASK_BYTES = 64 << 20
_MAPPING_THREADS = 8  # as many as map a file, where there are as many processors

Placed = tuple[Piece, int]  # a piece and its offset in the file
Task = tuple[Target, list[Placed]]


@dataclass(frozen=True, slots=True)
class Writing:
    """How pieces become bytes: the open sources, the dialect of what base is made into, and
    the watch that every step looks at."""

    reader: TensorReader
    dialect: Dialect
    watch: Watch


def write_shards(
    folder: Path,
    shards: Sequence[OutputShard],
    dialect: Dialect,
    *,
    jobs: int | None,
    sink: Sink,
    cancel: CancelToken,
) -> Mapping[str, bytes]:
    """Write every shard into `folder`, fsynced; the digest of each tensor by its name.

    Raises `Unreadable` when a source cannot be read or changed, `OSError` when the target
    cannot be written, `Cancelled`. Files are left half-written then.
    """
    sources = [piece.source for shard in shards for piece in shard.pieces]
    computed = any(not isinstance(source, Stored) for source in sources)
    processors = jobs or os.cpu_count() or 1
    mapping = processors >= _MAPPING_THREADS and not computed
    # Of two that copy, one can read and hash while the other writes.
    threads = _MAPPING_THREADS if mapping else min(2, processors)
    if computed:
        threads = threads_for_arithmetic(jobs)
    with ExitStack() as stack:
        reader = stack.enter_context(TensorReader())
        targets = [
            stack.enter_context(created(folder / shard.name, _size(shard), mapping=mapping))
            for shard in shards
        ]
        tasks: list[Task] = []
        for target, shard in zip(targets, shards, strict=True):
            target.write(memoryview(shard.header), 0)
            tasks += [(target, task) for task in _tasks(shard)]
        digests: dict[str, bytes] = {}
        for found in spread(
            tasks,
            lambda task, watch: _run(*task, Writing(reader, dialect, watch)),
            stage=STAGE,
            total=sum(piece.nbytes for shard in shards for piece in shard.pieces),
            jobs=threads,
            sink=sink,
            cancel=cancel,
        ):
            digests |= found
        reader.confirm(*_sources(shards))
        for target in targets:
            os.fsync(target.fd)
    return digests


def _size(shard: OutputShard) -> int:
    return len(shard.header) + sum(piece.nbytes for piece in shard.pieces)


def _tasks(shard: OutputShard) -> Iterator[list[Placed]]:
    """Pieces in the order of the file, small ones together; a module that is made from base
    is one task, because its scales are worked out once."""
    made: dict[str, list[Placed]] = {}
    task: list[Placed] = []
    size, offset = 0, len(shard.header)
    for piece in shard.pieces:
        placed = (piece, offset)
        offset += piece.nbytes
        if isinstance(piece.source, Made):
            made.setdefault(piece.source.key, []).append(placed)
            continue
        if task and size + piece.nbytes > _TASK_BYTES:
            yield task
            task, size = [], 0
        task.append(placed)
        size += piece.nbytes
    if task:
        yield task
    yield from made.values()


def _run(target: Target, task: list[Placed], how: Writing) -> dict[str, bytes]:
    first = task[0][0].source
    if isinstance(first, Made):
        return _make(target, task, first, how)
    found = {}
    for piece, offset in task:
        source = piece.source
        assert not isinstance(source, Made)
        if isinstance(source, Stored) and not is_transposed(source.tensor):
            found[piece.name] = _copy(target, piece, offset, source, how)
        else:
            parts = _cast(piece, source, how)
            found[piece.name] = _write_parts(target, piece, offset, parts, how)
    return found


def _copy(target: Target, piece: Piece, offset: int, source: Stored, how: Writing) -> bytes:
    """Copy the bytes of one tensor and hash them on the way."""
    hasher = SpanHasher()
    origin, start = how.reader.place(source.shard, source.name)
    for done in range(0, piece.nbytes, STEP_BYTES):
        how.watch.check()
        part = target.room(offset + done, min(STEP_BYTES, piece.nbytes - done))
        read_into(origin, start + done, part)
        data = memoryview(part.data)
        hasher.update(data)
        target.put(data, offset + done)
        how.watch.advance(len(data))
    target.leave(offset, piece.nbytes)
    return hasher.digest()


def _cast(piece: Piece, source: Stored | Cast, how: Writing) -> Iterator[Array]:
    """The values of a tensor in the dtype of its piece, in order, wherever they lie."""
    dtype = STORED[piece.dtype]
    for _, values in how.reader.serial(source.shard, source.name).chunks():
        with np.errstate(all="ignore"):
            yield values.astype(dtype)


def _make(target: Target, task: list[Placed], made: Made, how: Writing) -> dict[str, bytes]:
    """Weight and scales of one module from base."""
    form = closed_form(made.layout)
    assert isinstance(form, ClosedForm)  # nothing else is planned
    rows = [how.reader.rows(member.shard, member.name) for member in made.group]
    scales = _scales(form, made, rows, how.dialect)
    found = {}
    for piece, offset in task:
        assert isinstance(piece.source, Made)
        parts: Iterator[Array] = iter([_part(scales, piece.source.part)])
        if piece.source.part is None:
            parts = (codes for _, codes in requantised(form, rows[0], scales, how.dialect))
        found[piece.name] = _write_parts(target, piece, offset, parts, how)
    return found


def _scales(form: ClosedForm, made: Made, group: list[Rows], dialect: Dialect) -> Scales:
    """The scales of the first of `group`, with the others' maxima where they share one."""
    amax = form.amax(group[0], dialect)
    if made.layout in ("nvfp4", "nvfp4-32") or (made.layout == "fp8-block" and amax.size == 1):
        others = [form.amax(rows, dialect) for rows in group[1:]]
        for other in (other for other in others if other.size == amax.size):
            amax = np.maximum(amax, other.reshape(amax.shape))
    return form.scales(amax, group[0], dialect)


def _part(scales: Scales, suffix: str | None) -> Array:
    found = scales.weight_scale_2 if suffix == "weight_scale_2" else scales.weight_scale
    assert found is not None
    return found


def _write_parts(
    target: Target, piece: Piece, offset: int, parts: Iterator[Array], how: Writing
) -> bytes:
    """Write arrays one behind the other and hash them. They must fill the piece."""
    hasher, end = SpanHasher(), offset + piece.nbytes
    for array in parts:
        how.watch.check()
        data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        hasher.update(data)
        target.write(data, offset)
        offset += len(data)
        how.watch.advance(len(data))
    if offset != end:
        raise AssertionError(f"{piece.name} lacks {end - offset} bytes")
    return hasher.digest()


def _sources(shards: Sequence[OutputShard]) -> list[Shard]:
    """The distinct source shards of all pieces."""
    found: dict[str, Shard] = {}
    for shard in shards:
        for piece in shard.pieces:
            source = piece.source
            stored = source.group if isinstance(source, Made) else (source,)
            found |= {s.shard.path: s.shard for s in stored}
    return list(found.values())
