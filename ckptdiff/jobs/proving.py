"""Proves quantized weights: recomputes them from the base, module by module, on threads."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import xxhash

from ckptdiff.analysis.proving.agreement import agreed
from ckptdiff.analysis.proving.folding import fold
from ckptdiff.analysis.proving.proof import Maxima, Weight, judge
from ckptdiff.analysis.proving.provable import Case, Stored, Surveyor
from ckptdiff.analysis.spreading import spread
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.outcomes import Memory
from ckptdiff.jobs.workers import Observer, Workers
from ckptdiff.quant.arrays import (
    F32,
    MOST_THREADS,
    Array,
    MisfitError,
    Rows,
    threads_for_arithmetic,
)
from ckptdiff.records.checkpoint import Shard, Unread
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.proof import Outcome, Proof
from ckptdiff.sources.local import Unreadable

STAGE = "prove"
# Starting processes takes as long as this many bytes take threads.
_FOR_PROCESSES = 1 << 32

Processes = Workers[Sequence[Case], list[Proof]]


def prove(
    scheme: SchemeEvidence,
    base: SchemeEvidence,
    *,
    keys: Collection[str] | None = None,
    jobs: int | None = None,
    sink: Sink,
    cancel: CancelToken,
    memory: Memory | None = None,
    workers: Processes | None = None,
) -> Mapping[str, Proof]:
    """What recomputing the quantized modules of `scheme` from `base` shows, by module key.

    `keys` are the modules to look at (None: all that are quantized); `jobs` the number of
    threads (None: as many as help). Weights are read in parts; memory is flat, but for their
    scales. What cannot be looked at is "unknown" with its reason, and where that is because
    bytes could not be read, or changed while they were, the proof names them as `unread`.
    Outcomes are remembered in `memory` by the digests of all that they depend on, where those
    are known. `workers` were begun for this, and are dismissed.

    Raises `Cancelled` when `cancel` is set.
    """
    work, cases, found = _survey(scheme, base, keys)
    of_first = _signed(cases, partial(work.signature, first=True))
    of_all = _signed(cases, work.signature)
    known = memory.recall(of_first) if memory else {}
    if memory:
        known |= memory.recall({key: s for key, s in of_all.items() if key not in known})
    tasks: dict[str, list[Case]] = defaultdict(list)
    for key, case in cases.items():
        if key in known:
            found[key] = _proof(case, known[key])
        else:
            tasks[key.rpartition(".")[0]].append(case)
    if tasks:
        results = _spread(
            work, list(tasks.values()), jobs=jobs, sink=sink, cancel=cancel, workers=workers
        )
        fresh = {proof.key: proof for proofs in results for proof in proofs}
        if memory is not None:
            shards = {key: [p.shard for _, p in work.sources(cases[key])] for key in fresh}
            at_once = {key for key, proof in fresh.items() if proof.at_once}
            signs = of_all | {key: of_first[key] for key in at_once & of_first.keys()}
            memory.remember(signs, fresh, shards)
        found |= fresh
    bonds = {key: work.surveyor.bonds(case) for key, case in cases.items() if case.searched}
    return _calibrated_otherwise(agreed({key: found[key] for key in sorted(found)}, bonds))


def _signed(
    cases: Mapping[str, Case], signature: Callable[[Case], bytes | None]
) -> dict[str, bytes]:
    return {key: sign for key, case in cases.items() if (sign := signature(case))}


def begun(
    scheme: SchemeEvidence, base: SchemeEvidence, keys: Collection[str], jobs: int | None
) -> Processes | None:
    """Processes for `prove`, to be begun while it cannot yet: starting them takes as long as the
    digests do. None where it takes none."""
    if _threads_are_enough(jobs):
        return None
    work, cases, _ = _survey(scheme, base, keys)
    return _processes(sum(map(work.nbytes, cases.values())), jobs)


def _survey(
    scheme: SchemeEvidence, base: SchemeEvidence, keys: Collection[str] | None
) -> tuple[_Work, dict[str, Case], dict[str, Proof]]:
    """What can be proven of `keys`, in order, and what is known of the others."""
    surveyor = Surveyor(scheme, base)
    cases: dict[str, Case] = {}
    unknown: dict[str, Proof] = {}
    for key in sorted(scheme.coverage.quantized if keys is None else keys):
        if reason := surveyor.obstacle(key):
            unknown[key] = _unknown(scheme, key, reason)
        elif reason := surveyor.loss(key):
            unread = Unread(scheme.coverage.modules[key].shard, f"{key}: {reason}")
            unknown[key] = _unknown(scheme, key, reason, unread)
        else:
            cases[key] = surveyor.case(key)
    return _Work(scheme, base, surveyor), cases, unknown


def _processes(nbytes: int, jobs: int | None) -> Processes | None:
    """As many processes as processors, if they pay for `nbytes`."""
    if _threads_are_enough(jobs) or nbytes < _FOR_PROCESSES:
        return None
    return Workers(jobs or os.cpu_count() or 1, __name__)


def _threads_are_enough(jobs: int | None) -> bool:
    return (jobs or os.cpu_count() or 1) <= MOST_THREADS


def _spread(
    work: _Work,
    tasks: Sequence[Sequence[Case]],
    *,
    jobs: int | None,
    sink: Sink,
    cancel: CancelToken,
    workers: Processes | None,
) -> list[list[Proof]]:
    """The proofs of every task, by threads, or by processes where those pay."""
    total = sum(work.nbytes(case) for task in tasks for case in task)
    with ExitStack() as stack:
        if workers is not None:
            stack.callback(workers.dismiss)
        elif workers := _processes(total, jobs):
            stack.enter_context(workers)
        if workers is not None:
            workers.prepare(partial(_worker, work.scheme, work.base))
            wanted, prove = jobs or os.cpu_count() or 1, workers.run
        else:
            wanted = threads_for_arithmetic(jobs)
            prove = partial(work.prove, stack.enter_context(TensorReader()))
        return spread(tasks, prove, stage=STAGE, total=total, jobs=wanted, sink=sink, cancel=cancel)


def _worker(
    scheme: SchemeEvidence, base: SchemeEvidence
) -> Callable[[Sequence[Case], Observer], list[Proof]]:
    """What a process does; it ends with its open shards."""
    threads_for_arithmetic(1)
    return partial(_Work(scheme, base, Surveyor(scheme, base)).prove, TensorReader())


def _calibrated_otherwise(proofs: Mapping[str, Proof]) -> Mapping[str, Proof]:
    """Scales that no maximum gives, with codes that follow from them, are a fault among proven
    weights; where no weight of the layout is proven, the exporter calibrated otherwise."""
    proven = {proof.layout for proof in proofs.values() if proof.status == "proven"}
    return {
        key: replace(
            proof,
            status="searched",
            scale=None,
            first=None,
            expected=None,
            actual=None,
            wrong=0,
            reason="its codes follow from its scale, which is no maximum of the base's weight",
        )
        if proof.status == "scale" and proof.follows and proof.layout not in proven
        else proof
        for key, proof in proofs.items()
    }


def _unknown(scheme: SchemeEvidence, key: str, reason: str, unread: Unread | None = None) -> Proof:
    module = scheme.coverage.modules.get(key)
    return Proof(
        key=key,
        module=module.name if module else key,
        weight=module.weight if module else f"{key}.weight",
        shard=module.shard if module else "",
        status="unknown",
        reason=reason,
        unread=unread,
    )


def _proof(case: Case, outcome: Outcome) -> Proof:
    values = {field.name: getattr(outcome, field.name) for field in fields(Outcome)}
    module = case.module
    return Proof(
        key=case.key, module=module.name, weight=module.weight, shard=module.shard, **values
    )


class _Lost(Exception):
    """Bytes of a shard could not be read."""

    def __init__(self, side: SchemeEvidence, shard: str, reason: str) -> None:
        super().__init__(shard, reason)
        self.side, self.shard, self.reason = side, shard, reason


@contextmanager
def _located(side: SchemeEvidence, shard: Shard) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        raise _Lost(side, shard.name, error.reason) from error


class _Meter:
    """Tells a watch of the bytes that were read, but never of more than were announced."""

    def __init__(self, watch: Observer, nbytes: int) -> None:
        self._watch, self._left = watch, nbytes

    def advance(self, nbytes: int | None = None) -> None:
        """None: all that is left."""
        self._watch.check()
        step = self._left if nbytes is None else min(nbytes, self._left)
        self._left -= step
        self._watch.advance(step)


@dataclass(frozen=True, slots=True)
class _Work:
    """Proves modules of one scheme."""

    scheme: SchemeEvidence
    base: SchemeEvidence
    surveyor: Surveyor

    def prove(self, reader: TensorReader, cases: Sequence[Case], watch: Observer) -> list[Proof]:
        """The proofs of modules that have one parent, in turn: they may share maxima."""
        meter = _Meter(watch, sum(map(self.nbytes, cases)))
        maxima = Maxima(
            {
                key: self._rows(reader, self.base, self._original(key), meter)
                for case in cases
                for key in case.originals
            }
        )
        proofs = [self._proof(reader, case, maxima, meter) for case in cases]
        meter.advance()
        return proofs

    def nbytes(self, case: Case) -> int:
        """Bytes that a proof reads, if nothing is wrong: the base is gone through twice."""
        stored = self.surveyor.tensors[case.module.weight]
        return stored.tensor.nbytes + 2 * self._original(case.key).tensor.nbytes

    def sources(self, case: Case) -> Iterator[tuple[SchemeEvidence, Stored]]:
        """Every tensor that an outcome depends on."""
        yield from ((self.scheme, part) for part in self.surveyor.parts(case.module))
        yield from ((self.base, self._original(key)) for key in case.originals)
        for key in case.folds:
            mine, theirs = self.surveyor.norms(key)
            yield from ((self.scheme, mine), (self.base, theirs))

    def signature(self, case: Case, first: bool = False) -> bytes | None:
        """A digest of all that an outcome depends on, or, with `first`, that one does which came
        `at_once`; None where some of it was not hashed."""
        if first:
            case = replace(case, shares=case.shares[:1])
        parts: list[object] = [
            first,
            case.layouts,
            case.hosts,
            case.scale_hosts,
            case.folded,
            case.searched,
            case.rescaled,
        ]
        of_base = {}
        for side, part in self.sources(case):
            digest = side.digests.get(part.name)
            if digest is None:
                return None
            what = [part.tensor.dtype, part.tensor.shape, digest.hex()]
            parts.append([side is self.base, part.name.rpartition(".")[2], what])
            of_base[part.name] = what
        parts += [[of_base[self._original(key).name] for key in keys] for keys in case.shares]
        return xxhash.xxh3_128_digest(json.dumps(parts).encode())

    def _proof(self, reader: TensorReader, case: Case, maxima: Maxima, meter: _Meter) -> Proof:
        try:
            outcome = judge(self._weight(reader, case, meter), maxima)
            # What was read has to be what the headers were read of.
            for side, part in self.sources(case):
                with _located(side, part.shard):
                    reader.confirm(part.shard)
        except _Lost as error:
            unread = Unread(error.shard, error.reason)
            if error.side is self.base:
                reason = f"the base's {error.shard} could not be read ({error.reason})"
                unread = Unread(case.module.shard, reason)
            return _unknown(self.scheme, case.key, unread.reason, unread)
        except MisfitError as error:
            return _unknown(self.scheme, case.key, str(error))
        if case.lacking and outcome.scale:
            reason = f"its scale is not that of its own base weight, and {case.lacking}'s, "
            return _unknown(self.scheme, case.key, f"{reason}which may share it, is of no use")
        return _proof(case, outcome)

    def _weight(self, reader: TensorReader, case: Case, meter: _Meter) -> Weight:
        stored = self.surveyor.tensors[case.module.weight]
        with _located(self.scheme, stored.shard):
            scales = reader.scales(self.scheme, case.module.name)
        return Weight(
            layouts=case.layouts,
            stored=self._rows(reader, self.scheme, stored, meter),
            scales=scales,
            base=self._rows(reader, self.base, self._original(case.key), meter),
            hosts=case.hosts,
            scale_hosts=case.scale_hosts,
            shares=case.shares,
            folds=tuple(self._fold(reader, key) for key in case.folds),
            folded=case.folded,
            shifted=tuple(self._fold(reader, key, 1) for key in case.folds if case.folded),
            searched=case.searched,
            rescaled=case.rescaled,
        )

    def _original(self, key: str) -> Stored:
        found = self.surveyor.original(key)
        assert found is not None
        return found

    def _rows(
        self, reader: TensorReader, side: SchemeEvidence, part: Stored, meter: _Meter
    ) -> Rows:
        def read(first: int, stop: int) -> Array:
            with _located(side, part.shard):
                array = reader.rows(part.shard, part.name).read(first, stop)
            meter.advance(array.nbytes)
            return array

        count, columns = part.tensor.shape
        return Rows(count, columns, read)

    def _fold(self, reader: TensorReader, key: str, shift: int = 0) -> F32:
        mine, theirs = self.surveyor.norms(key)
        weights = []
        for side, part in ((self.scheme, mine), (self.base, theirs)):
            with _located(side, part.shard):
                weights.append(reader.array(part.shard, part.name).astype(np.float32))
        return fold(weights[0], weights[1], (mine.tensor.dtype, theirs.tensor.dtype), shift)
