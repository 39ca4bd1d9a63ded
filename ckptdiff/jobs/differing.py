"""Compares two checkpoints: hashes first, arithmetic only where hashes differ.

Threads take ranges of rows of any tensor, so that one large tensor keeps all of them busy. What
a difference means, and how it is told, belongs to `analysis`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from ckptdiff.analysis.codes import CodeSums
from ckptdiff.analysis.differing.deltas import Cause, Outcome
from ckptdiff.analysis.differing.difference import Sums, is_precise
from ckptdiff.analysis.differing.onepass import OnePass, one_pass
from ckptdiff.analysis.differing.operands import OpenPair, Workspace, compared, open_pair
from ckptdiff.analysis.differing.pairs import Operand, Pair
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started, silent
from ckptdiff.quant.arrays import MisfitError, threads_for_arithmetic
from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import Suffix
from ckptdiff.sources.local import Unreadable

STAGE = "compare"
REPORT_SECONDS = 0.05
# Elements that one task goes through: long enough to hide what a task costs.
_SPAN = 1 << 21
# Bytes from which on a compiled pass saves more than numba takes to be imported.
_WORTH_COMPILING = 1 << 30
# What it wants: chunks that stay near the processor, and no more threads than memory can feed.
# numba itself takes 126 MiB of the 150 that `diff` may have, a thread 9.
_COMPILED_CHUNK, _COMPILED_THREADS = 250_000, 2
# Elements that are worked on in float64 at once, which takes less than a second pass.
_SMALL = 1 << 12
# What a tensor can do to its reader, by its header or by its bytes.
FAILURES = (MisfitError, Unreadable, KeyError, ValueError, IndexError, OverflowError, MemoryError)
_WEIGHT_SCALES: tuple[Suffix, ...] = ("weight_scale", "weight_scale_2", "pre_quant_scale")


@dataclass(slots=True)
class _Work:
    """A pair whose values have to be looked at, and what is known so far."""

    pair: Pair
    cause: Cause | None
    shards: tuple[Shard, Shard]
    open: OpenPair | None = None
    left: int = 0
    parts: dict[int, tuple[Sums, CodeSums | None]] = field(default_factory=dict)
    reason: str | None = None

    @property
    def elements(self) -> int:
        assert self.pair.a is not None
        return math.prod(self.pair.a.shape)

    @property
    def is_small(self) -> bool:
        return self.elements <= _SMALL

    @property
    def nbytes(self) -> int:
        """Bytes of both sides."""
        return sum(_nbytes(side) for side in (self.pair.a, self.pair.b) if side is not None)

    def total(self) -> tuple[Sums, CodeSums | None]:
        """All parts together, in their order: floating-point sums depend on it."""
        sums, codes = Sums(), None
        for _, (of_part, of_codes) in sorted(self.parts.items(), key=lambda part: part[0]):
            sums.add(of_part)
            if of_codes is not None:
                codes = codes or CodeSums()
                codes.add(of_codes)
        return sums, codes


def compare(
    a: SchemeEvidence,
    b: SchemeEvidence,
    pairs: Sequence[Pair],
    *,
    raw: bool,
    jobs: int | None,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Outcome, ...]:
    """The outcome of every pair, in their order. `a` and `b` have been hashed.

    `raw` compares stored codes too. Nothing that lies in a checkpoint raises; a tensor that
    cannot be read, or changes meanwhile, is "unread" with a reason. Raises `Cancelled`.
    """
    outcomes = {pair.key: _judged(a, b, pair) for pair in pairs}
    todo = [
        _Work(pair, outcomes[pair.key].cause, (_shard(a, pair.a), _shard(b, pair.b)))
        for pair in pairs
        if outcomes[pair.key].status in ("changed", "dtype") and not outcomes[pair.key].reason
    ]
    nbytes = sum(work.nbytes for work in todo)
    sink(Started(STAGE, nbytes, "bytes"))
    compiled = one_pass() if nbytes >= _WORTH_COMPILING else None
    with TensorReader() as reader:
        run = _Run(reader, a, b, raw, compiled)
        run.all(todo, jobs, sink, cancel)
        run.exact = True
        again = [
            work
            for work in todo
            if work.reason is None and not work.is_small and not is_precise(work.total()[0])
        ]
        # Few tensors, whose bytes have been counted.
        run.all(again, jobs, silent, cancel)
    sink(Finished(STAGE))
    for work in todo:
        outcomes[work.pair.key] = _settled(outcomes[work.pair.key], work)
    return tuple(outcomes[pair.key] for pair in pairs)


# What digests tell


def _judged(a: SchemeEvidence, b: SchemeEvidence, pair: Pair) -> Outcome:
    """What can be said of a pair before any value is read."""
    if pair.a is None or pair.b is None:
        other = b if pair.b is None else a
        if not other.coverage.complete:
            return Outcome(pair, "unread", reason="the other checkpoint could not be read whole")
        return Outcome(pair, "only_a" if pair.b is None else "only_b")
    digests = a.digests.get(pair.a.name), b.digests.get(pair.b.name)
    obstacle = pair.a.obstacle or pair.b.obstacle
    parts = pair.a.part is not None or pair.b.part is not None
    if obstacle and (parts or pair.a.tensor.dtype != pair.b.tensor.dtype):
        return Outcome(pair, "unread", reason=obstacle)
    # What cannot be unpacked is compared as it is stored.
    shapes = (pair.a.tensor.shape, pair.b.tensor.shape)
    if shapes[0] != shapes[1] if obstacle else pair.a.shape != pair.b.shape:
        return Outcome(pair, "shape")
    if digests[0] is None or digests[1] is None:
        side, operand = (a, pair.a) if digests[0] is None else (b, pair.b)
        return Outcome(pair, "unread", reason=_why_no_digest(side, operand))
    return _by_digests(a, b, pair, pair.a, pair.b, digests[0] == digests[1])


def _by_digests(
    a: SchemeEvidence, b: SchemeEvidence, pair: Pair, one: Operand, other: Operand, equal: bool
) -> Outcome:
    reason = one.obstacle or other.obstacle or None
    whole = one.part is None and other.part is None
    if one.tensor.dtype != other.tensor.dtype or one.coding != other.coding:
        if reason:
            return Outcome(pair, "unread", reason=reason)
        return Outcome(pair, "dtype")
    if not one.module:
        return Outcome(pair, "same" if equal and whole else "changed", reason=reason)
    scales = same_scales(a, b, pair)
    if equal and scales:
        return Outcome(pair, "same")
    cause: Cause = "scales" if equal else "codes" if scales else "codes and scales"
    return Outcome(pair, "changed", cause=cause, reason=reason)


def same_scales(a: SchemeEvidence, b: SchemeEvidence, pair: Pair) -> bool:
    """Whether what belongs to two packed weights is the same, by digests."""
    assert pair.a is not None and pair.b is not None
    found = [
        {
            suffix: (tensor.dtype, tensor.shape, side.digests.get(name))
            for suffix, name, tensor in _beside(side, operand)
        }
        for side, operand in ((a, pair.a), (b, pair.b))
    ]
    known = all(digest is not None for _, _, digest in found[0].values())
    return known and found[0] == found[1]


def _beside(side: SchemeEvidence, operand: Operand) -> Iterator[tuple[str, str, Tensor]]:
    """(suffix, name, tensor) of what takes part in the values of a packed weight."""
    if operand.packing is not None:
        for suffix, (name, shard) in operand.packing.beside.items():
            yield suffix, name, shard.tensors[name]
        return
    for kind, scale in side.scales.get(operand.module, {}).items():
        if kind in _WEIGHT_SCALES:
            yield kind, scale.name, scale.tensor


def _why_no_digest(side: SchemeEvidence, operand: Operand) -> str:
    shard = next(s for s in side.checkpoint.shards if s.name == operand.shard)
    for unread in side.unread:
        if unread.path.rpartition("/")[2] == operand.shard:
            return f"{operand.shard}: {unread.reason}"
    if any(defect.kind == "overlap" for defect in shard.defects):
        return f"{operand.shard}: two tensors claim the same bytes"
    return f"{operand.shard} does not hold all its bytes"


def _settled(outcome: Outcome, work: _Work) -> Outcome:
    if work.reason is not None:
        # That the bytes differ is known all the same.
        status = outcome.status if outcome.status == "changed" else "unread"
        return replace(outcome, status=status, reason=work.reason)
    sums, codes = work.total()
    # An expert has no digest of its own.
    pieces = [side.is_piece for side in (work.pair.a, work.pair.b) if side is not None]
    if any(pieces) and outcome.status == "changed" and not sums.touched:
        return Outcome(work.pair, "same")
    return replace(outcome, sums=sums, codes=codes)


# Reading values

_Task = tuple[_Work, int, int]
# Bytes that were gone through, an error that ends everything, or that a thread has ended.
_Said = int | BaseException | None


@dataclass(slots=True)
class _Run:
    """What the threads share."""

    reader: TensorReader
    a: SchemeEvidence
    b: SchemeEvidence
    raw: bool
    one_pass: OnePass | None
    exact: bool = False
    stop: CancelToken = field(default_factory=CancelToken)
    lock: threading.Lock = field(default_factory=threading.Lock)
    said: SimpleQueue[_Said] = field(default_factory=SimpleQueue)

    def all(self, todo: Sequence[_Work], jobs: int | None, sink: Sink, cancel: CancelToken) -> None:
        """Fill in the parts of `todo`; no thread is left on return."""
        most = sum(1 + work.elements // _SPAN for work in todo)
        tasks = self._tasks(todo)
        threads = [
            # A daemon: even `start` has a lock that an interrupt can leave locked.
            threading.Thread(target=self._work, args=(tasks,), name="ckptdiff-diff", daemon=True)
            for _ in range(min(self._threads(jobs), most))
        ]
        try:
            for thread in threads:
                thread.start()
            self._report(len(threads), sink, cancel)
        finally:
            self.stop.cancel()
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        self.stop = CancelToken()

    @property
    def _chunk(self) -> int | None:
        return None if self.one_pass is None else _COMPILED_CHUNK

    def _threads(self, jobs: int | None) -> int:
        most = threads_for_arithmetic(jobs)
        return most if self.one_pass is None else min(most, _COMPILED_THREADS)

    def _report(self, running: int, sink: Sink, cancel: CancelToken) -> None:
        """Pass on what threads say until the last one ends: only the caller's thread reports."""
        while running:
            cancel.raise_if_cancelled()
            try:
                said = self.said.get(timeout=REPORT_SECONDS)
            except Empty:
                continue
            if isinstance(said, BaseException):
                raise said
            if said is None:
                running -= 1
            else:
                sink(Advanced(STAGE, said))

    def _tasks(self, todo: Sequence[_Work]) -> Iterator[_Task]:
        """Ranges of rows of everything, each pair being opened when it is begun."""
        for work in todo:
            scales = work.cause not in ("scales", "codes and scales")
            try:
                opened = open_pair(
                    self.reader,
                    self.a,
                    self.b,
                    work.pair,
                    same_scales=scales,
                    chunk=self._chunk,
                )
            except FAILURES as error:
                work.reason = _reason(error)
                continue
            spans = list(opened.spans(_SPAN))
            work.open, work.left, work.parts = opened, len(spans), {}
            for first, last in spans:
                yield work, first, last

    def _work(self, tasks: Iterator[_Task]) -> None:
        room = Workspace(self._chunk, self.one_pass)
        try:
            while not self.stop.cancelled:
                with self.lock:
                    task = next(tasks, None)
                if task is None:
                    break
                self._span(*task, room)
        except BaseException as error:
            self.said.put(error)
        else:
            self.said.put(None)

    def _span(self, work: _Work, first: int, last: int, room: Workspace) -> None:
        """Find out about rows [first, last)."""
        opened = work.open
        assert opened is not None
        sums, codes = Sums(), CodeSums() if self.raw and _same_codes(work.pair) else None
        try:
            if work.reason is None:
                exact = self.exact or work.is_small
                sums = compared(opened, first, last, room, self.stop, exact, codes)
        except FAILURES as error:
            work.reason = _reason(error)
        self.said.put(work.nbytes * (last - first) // opened.count)
        with self.lock:
            work.parts[first] = sums, codes
            work.left -= 1
            ended = not work.left
        if ended:
            work.open = None  # its scales are not needed any more
            try:
                self.reader.confirm(*work.shards)
            except Unreadable as error:
                work.reason = _reason(error)


def _same_codes(pair: Pair) -> bool:
    """Whether codes of the two sides mean the same in the same places."""
    assert pair.a is not None and pair.b is not None
    sides = (pair.a, pair.b)
    if any(side.is_piece or (side.packing and side.tensor.dtype == "I32") for side in sides):
        return False
    return pair.a.tensor.dtype == pair.b.tensor.dtype and pair.a.coding == pair.b.coding


def _reason(error: Exception) -> str:
    match error:
        case Unreadable():
            return error.reason
        case KeyError():
            return f"values of dtype {error.args[0]} are not compared"
        case MemoryError():
            return "a row of it does not fit in memory"
        case _:
            return str(error)


def _shard(side: SchemeEvidence, operand: Operand | None) -> Shard:
    assert operand is not None
    return next(shard for shard in side.checkpoint.shards if shard.name == operand.shard)


def _nbytes(side: Operand) -> int:
    if side.packing is not None and side.packing.expert is not None:
        return side.tensor.nbytes // side.tensor.shape[0]
    return side.tensor.nbytes
