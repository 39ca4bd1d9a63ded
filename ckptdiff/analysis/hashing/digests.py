"""Digests of tensor bytes and the fingerprint of a checkpoint, in one pass with a value scan.

Every later comparison starts from these digests, so each byte is read once, in the order
in which it lies on disk, and never held: a shard is cut into units of about 64 MiB, a unit
is read through one reused buffer of 2 MiB (which stays in the processor's cache; mapping
the file instead would count gigabytes of page cache as ours), and units of many shards
run on a few threads, which works because reading and hashing both release the GIL.

Comparing digests, naming identity groups and caching digests do not belong here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, zip_longest

import xxhash

from ckptdiff.analysis.hashing.joining import Joining, UnitDigests
from ckptdiff.analysis.hashing.scanning import Scan, flaws_in, is_clean, merged, scan_for
from ckptdiff.analysis.spreading import Watch, spread
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.records.checkpoint import FileIdentity, Header, Shard, Unread
from ckptdiff.records.digests import Flaws, ShardDigests
from ckptdiff.sources.local import CHANGED, Unreadable, identity, open_regular, reason_of

MIB = 1 << 20
SPAN_BYTES = 256 * MIB  # part of the contract: another value gives other digests
UNIT_BYTES = 64 * MIB
# Every step gives up the interpreter's lock and asks for it again: on 16 processors, buffers of
# 1 MiB and 16 threads take 1.6 times as long as 8 threads, which 2 MiB make faster yet.
BUFFER_BYTES = 2 * MIB
MOST_THREADS = 8

STAGE = "hash"
SHORT = "ended before its data did"
NO_IDENTITY = "its identity is not known, so a change while it is read would go unnoticed"


# (begin, end, name) of a tensor, counted from the start of the data section.
Row = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Run:
    """Tensors without a gap between them whose values are looked at in the same way."""

    scan: Scan
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Batch:
    """Small tensors that lie within one buffer: bytes [start, stop) of the file.

    `rows` has (begin, end, name) of each as the header counts, from the start of the data
    section, sorted; so the first row's begin is `start`. `runs` are the stretches of
    neighbouring tensors that are scanned alike.
    """

    start: int
    stop: int
    rows: Sequence[Row]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes [start, stop) of the file: a tensor, or its span `number` if not None.

    `origin` is where the tensor itself starts, `scan` how its values are looked at.
    """

    start: int
    stop: int
    name: str
    number: int | None
    origin: int
    scan: Scan | None


Read = Batch | Stretch


@dataclass(frozen=True, slots=True)
class Unit:
    """What one task reads: neighbouring reads of file number `file`, sorted by offset."""

    file: int
    path: str
    identity: FileIdentity
    reads: tuple[Read, ...]

    @property
    def nbytes(self) -> int:
        return sum(read.stop - read.start for read in self.reads)


def hash_shards(
    shards: Sequence[Shard],
    *,
    scan: bool = True,
    executor: Executor | None = None,
    jobs: int | None = None,
    on_shard: Callable[[str, ShardDigests], None] | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> Mapping[str, ShardDigests]:
    """The digests of every tensor of `shards`, by `Shard.path`.

    Shards without a header are passed over. Shards that are one file under several names
    (same device and inode) are read once. What cannot be read, or is another file than
    the one whose header was read, or changes before its last byte was read, gives
    `ShardDigests.unread` and never an exception; the other shards go on. Values that no
    weight and no scale may have are counted on the way, in `ShardDigests.flaws`, unless
    `scan` is False, which is faster.

    `executor` runs the work (its tasks share memory with the caller: threads); without
    one, `jobs` threads (default: one a processor, as far as that helps) are started, and gone
    on return. Memory is a buffer of 2 MiB a thread and the digests.

    `on_shard` is called in those threads with the path and the digests of each shard as soon
    as it is read; shards are begun in the order in which they are given.

    `sink` is called in the calling thread: `Started` with the bytes to read, `Advanced`
    with bytes that were read, at most 20 times a second, `Finished` unless it raises.

    Raises `Cancelled` soon after `cancel` is set (a thread looks at it after every
    buffer), and lets KeyboardInterrupt through as soon; nothing of ours runs then.
    """
    files: dict[FileIdentity, list[Unit]] = {}
    names: dict[FileIdentity, list[Shard]] = {}
    for shard in shards:
        if shard.header is None or shard.identity is None:
            continue
        names.setdefault(shard.identity, []).append(shard)
        if shard.identity in files:
            continue
        files[shard.identity] = cut(len(files), shard.path, shard.identity, shard.header, scan)
    jobs = jobs or min(MOST_THREADS, os.cpu_count() or 1)
    units = _interleaved(list(files.values()), jobs)
    shared = _Shared()
    joining = Joining({known: len(cuts) for known, cuts in files.items()})

    def work(unit: Unit, watch: Watch) -> None:
        result = _hash_unit(unit, watch, shared)
        if joining.add(unit.identity, result) and on_shard is not None:
            for shard in names[unit.identity]:
                on_shard(shard.path, _shard_digests(shard, joining.whole))

    spread(
        units,
        work,
        stage=STAGE,
        total=sum(unit.nbytes for unit in units),
        executor=executor,
        jobs=jobs,
        sink=sink,
        cancel=cancel or CancelToken(),
    )
    return {
        shard.path: _shard_digests(shard, joining.whole)
        for shard in shards
        if shard.header is not None
    }


def _shard_digests(shard: Shard, joined: Mapping[FileIdentity, ShardDigests | str]) -> ShardDigests:
    found = NO_IDENTITY if shard.identity is None else joined[shard.identity]
    return ShardDigests({}, Unread(shard.name, found)) if isinstance(found, str) else found


# Planning: which bytes are read together


def cut(
    number: int, path: str, known: FileIdentity, header: Header, scan: bool = True
) -> list[Unit]:
    """The units of file `number`, sorted by offset: at least `UNIT_BYTES` each but the last.

    Only tensors above `SPAN_BYTES` are divided, at their span borders. A file of which
    nothing can be read has no units.
    """
    units: list[Unit] = []
    reads: list[Read] = []
    weight = 0
    for read in _reads(header, known.size, scan):
        reads.append(read)
        weight += read.stop - read.start
        if weight >= UNIT_BYTES:
            units.append(Unit(number, path, known, tuple(reads)))
            reads, weight = [], 0
    if reads:
        units.append(Unit(number, path, known, tuple(reads)))
    return units


def _reads(header: Header, file_size: int, scan: bool) -> Iterator[Read]:
    origin = header.data_start
    limit = file_size - origin
    rows = [
        (begin, end, name)
        for name, tensor in header.tensors.items()
        for begin, end in (tensor.data_offsets,)
        if 0 <= begin <= end <= limit  # else truncated, or nonsense: a defect says so
    ]
    rows.sort()
    small = min(BUFFER_BYTES, SPAN_BYTES)
    first = 0  # the batch being collected is rows[first:index] …
    stop = 0  # … and ends here
    reach = -1  # a tensor that ends up to here still fits in it; -1: none was begun
    for index, (begin, end, name) in enumerate(rows):
        if end <= reach:
            if end > stop:  # max() here made planning a third slower
                stop = end
            continue
        if first < index:
            yield _batch(rows[first:index], origin, stop, header, scan)
        if end - begin <= small:
            first, stop, reach = index, end, begin + small
        else:
            first, reach = index + 1, -1
            kind = scan_for(name, header.tensors[name].dtype) if scan else None
            yield from _stretches(origin + begin, origin + end, name, kind)
    if first < len(rows):
        yield _batch(rows[first:], origin, stop, header, scan)


def _batch(rows: Sequence[Row], origin: int, stop: int, header: Header, scan: bool) -> Batch:
    runs = tuple(_runs(rows, header)) if scan else ()
    return Batch(origin + rows[0][0], origin + stop, rows, runs)


def _runs(rows: Sequence[Row], header: Header) -> Iterator[Run]:
    """Neighbours that are scanned alike and cover their bytes whole, as one run each."""
    tensors = header.tensors
    kind: Scan | None = None
    first, reach = 0, -1
    for index, (begin, end, name) in enumerate(rows):
        found = scan_for(name, tensors[name].dtype)
        if found is not kind or begin != reach:
            if kind is not None and first < index:
                yield Run(kind, rows[first:index])
            kind, first = found, index
        reach = end
    if kind is not None:
        yield Run(kind, rows[first:])


def _stretches(start: int, stop: int, name: str, scan: Scan | None) -> Iterator[Stretch]:
    if stop - start <= SPAN_BYTES:
        yield Stretch(start, stop, name, None, start, scan)
        return
    for number, at in enumerate(range(start, stop, SPAN_BYTES)):
        yield Stretch(at, min(at + SPAN_BYTES, stop), name, number, start, scan)


def _interleaved(files: Sequence[Sequence[Unit]], threads: int) -> list[Unit]:
    """Of as many files as there are threads the first unit of each, then the second of each,
    and so on; then the next files.

    Threads so read different files, which is kinder to network file systems and to the
    locks of one inode, while each file is still read from front to back, and the first files
    are known long before the last ones.
    """
    groups = (files[n : n + threads] for n in range(0, len(files), threads))
    turns = chain.from_iterable(zip_longest(*group) for group in groups)
    return [unit for unit in chain.from_iterable(turns) if unit is not None]


# Running: one unit a task


class _Shared:
    """What the threads of one `hash_shards` call share."""

    def __init__(self) -> None:
        self._buffers: deque[memoryview] = deque()
        self.failed: dict[int, str] = {}  # file number -> why; its other units are not read

    def borrow_buffer(self) -> memoryview:
        """A buffer nobody uses: as many come to be as there are threads."""
        try:
            return self._buffers.pop()
        except IndexError:
            return memoryview(bytearray(BUFFER_BYTES))

    def return_buffer(self, buffer: memoryview) -> None:
        self._buffers.append(buffer)


def _hash_unit(unit: Unit, watch: Watch, shared: _Shared) -> UnitDigests | str:
    """The digests of one unit, or why its file counts as unread.

    The file is opened for every unit and must be the one whose header was read, before
    and after: so the units of a file vouch for each other without sharing anything.
    """
    if unit.file in shared.failed:
        return shared.failed[unit.file]
    buffer = shared.borrow_buffer()
    try:
        with open_regular(unit.path) as opened:
            result = (
                _digests(opened.fd, unit.reads, buffer, watch)
                if opened.identity == unit.identity
                else CHANGED
            )
            if identity(opened.fd) != unit.identity:
                result = CHANGED  # a short read is then only how it showed
    except Unreadable as error:
        result = error.reason
    except OSError as error:
        result = reason_of(error)
    finally:
        shared.return_buffer(buffer)
    if isinstance(result, str):
        shared.failed[unit.file] = result
    return result


def _digests(fd: int, reads: Iterable[Read], buffer: memoryview, watch: Watch) -> UnitDigests | str:
    tensors: dict[str, bytes] = {}
    spans: dict[tuple[str, int], bytes] = {}
    flaws: dict[str, Flaws] = {}
    digest = xxhash.xxh3_128_digest
    for read in reads:
        if isinstance(read, Batch):
            length = read.stop - read.start
            if not _fill(fd, buffer[:length], read.start):
                return SHORT
            base = read.rows[0][0]
            for begin, end, name in read.rows:  # by the thousand: nothing but the hash here
                tensors[name] = digest(buffer[begin - base : end - base])
            for part in read.runs:
                flaws.update(_flaws_of(part, buffer, base))
            watch.advance(length)
            watch.check()
            continue
        hasher = xxhash.xxh3_128()
        for at in range(read.start, read.stop, BUFFER_BYTES):
            view = buffer[: read.stop - at]
            if not _fill(fd, view, at):
                return SHORT
            hasher.update(view)
            if read.scan is not None and not is_clean(view, read.scan):
                first = (at - read.origin) // read.scan.signed.itemsize
                found = flaws_in(view, read.scan, first)
                flaws[read.name] = merged(flaws.get(read.name), found)
            watch.advance(len(view))
            watch.check()
        if read.number is None:
            tensors[read.name] = hasher.digest()
        else:
            spans[read.name, read.number] = hasher.digest()
    return UnitDigests(tensors, spans, flaws)


def _flaws_of(part: Run, buffer: memoryview, base: int) -> Iterator[tuple[str, Flaws]]:
    """Flaws in a run of small tensors, looked at as one before any of them alone."""
    if is_clean(buffer[part.rows[0][0] - base : part.rows[-1][1] - base], part.scan):
        return
    for begin, end, name in part.rows:
        data = buffer[begin - base : end - base]
        if not is_clean(data, part.scan):
            yield name, flaws_in(data, part.scan)


def _fill(fd: int, view: memoryview, offset: int) -> bool:
    """Fill `view` from `offset` on; False when the file ends before that."""
    filled = 0
    while filled < len(view):
        count = os.preadv(fd, [view[filled:]], offset + filled)
        if count == 0:
            return False
        filled += count
    return True
