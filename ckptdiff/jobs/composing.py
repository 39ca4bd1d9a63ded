"""Carries plans out: prove, write beside the target, read back, rename.

Whatever stops this (a full disk, a kill, a base that changes) leaves sources and originals as
they were, and nothing half-made under a final name. What was written is judged by the `verify`
that the caller hands in, because rules are not known here.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ckptdiff.analysis.against_base import compare
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.hashing.fingerprint import fingerprint
from ckptdiff.errors import CkptdiffError, UsageError
from ckptdiff.formats.names import keys_of
from ckptdiff.jobs.copying import write_shards
from ckptdiff.jobs.hashing import digest_shards
from ckptdiff.jobs.outcomes import Memory
from ckptdiff.jobs.placing import NOTHING, Filled, How, copy_file, sync_tree, write_all, write_file
from ckptdiff.jobs.planning import PROVENANCE, Job
from ckptdiff.jobs.proving import Processes, begun, prove
from ckptdiff.jobs.viewing import digest_parts
from ckptdiff.quant.dialects import ALL, Dialect
from ckptdiff.records.composition import Composition
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.plan import Outcome, Plan
from ckptdiff.records.proof import LOWEST_SQNR_DB, Proof
from ckptdiff.records.report import Tool


def carry_out(jobs: Sequence[Job], how: How) -> tuple[Outcome, ...]:
    """Write the scheme of every plan; what keeps one from being written is in its outcome.

    Raises `UsageError` before anything is written when a plan is impossible or a donor is not
    what base gives, and `Cancelled`.
    """
    todo = [(job.plan, job.composition) for job in jobs if job.composition is not None]
    if len(todo) < len(jobs):
        raise UsageError("not every plan can be carried out", "The plans say what is missing.")
    compositions = [composition for _, composition in todo]
    donations = _donations(compositions)
    memory = Memory(how.hashing.cache, time.time_ns())
    with ExitStack() as stack:
        processes: dict[str, Processes] = {}
        for path, given in donations.items():
            if workers := begun(given.donor, given.base, given.keys, how.jobs):
                processes[path] = stack.enter_context(workers)
        hashed = _hashed(compositions, how)
        proofs = _proven(donations, hashed, processes, memory, how)
        fills = [(plan, partial(_whole, plan, parts, proofs, hashed, how)) for plan, parts in todo]
        return write_all(fills, how)


def _whole(
    plan: Plan,
    composition: Composition,
    proofs: Mapping[str, Mapping[str, Proof]],
    hashed: Mapping[str, SchemeEvidence],
    how: How,
    folder: Path,
) -> Filled:
    """The composition with where it comes from, read back and judged."""
    digests = _fill(folder, composition, _dialect(composition, proofs), how)
    expected = _fingerprint(composition, digests)
    write_file(folder / PROVENANCE, _provenance(plan, composition, expected, hashed, how.tool))
    sync_tree(folder)
    found = how.verify(folder)
    if found != expected:
        raise CkptdiffError(
            f"what was written to {plan.target} is not what was to be written "
            f"({found or 'unreadable'} instead of {expected})",
            f"{NOTHING} The disk or its memory may be failing.",
        )
    return Filled(expected, plan.bytes, notes=tuple(_strange(composition, hashed)))


def _strange(composition: Composition, hashed: Mapping[str, SchemeEvidence]) -> Iterator[str]:
    """What speaks against the base being the one that donors were made from, although all that
    they supply was proven: what they did not quantize differs."""
    base = hashed[composition.base.checkpoint.path]
    for donor, _ in composition.donated:
        differs = compare(hashed[donor.checkpoint.path], base, {}).differs
        if differs:
            yield (
                f"{len(differs)} unquantized tensors of {donor.id} are not base's "
                f"({differs[0].name} is one); base's were taken: make sure that it is the right one"
            )


def _fill(
    folder: Path, composition: Composition, dialect: Dialect, how: How
) -> Mapping[str, bytes]:
    """Every file of the new checkpoint; the digests of its tensors by name."""
    for name, path in composition.copies.items():
        copy_file(Path(path), folder / name)
    for name, content in composition.documents.items():
        write_file(folder / name, content)
    return write_shards(
        folder, composition.shards, dialect, jobs=how.jobs, sink=how.sink, cancel=how.cancel
    )


@dataclass(frozen=True, slots=True)
class _Donation:
    """What a donor supplies to all that is composed, by module key, and its base."""

    donor: SchemeEvidence
    base: SchemeEvidence
    keys: set[str]


def _donations(compositions: Sequence[Composition]) -> dict[str, _Donation]:
    """By the donor's path."""
    found: dict[str, _Donation] = {}
    for composition in compositions:
        for donor, keys in composition.donated:
            path = donor.checkpoint.path
            found.setdefault(path, _Donation(donor, composition.base, set())).keys.update(keys)
    return found


def _proven(
    donations: Mapping[str, _Donation],
    hashed: Mapping[str, SchemeEvidence],
    processes: Mapping[str, Processes],
    memory: Memory,
    how: How,
) -> dict[str, Mapping[str, Proof]]:
    """Proofs of all that donors supply, by the donor's path. Raises `UsageError` when one is
    not what base gives, or could not be looked at."""
    proofs = {}
    for path, given in donations.items():
        donor = hashed[path]
        found = prove(
            donor,
            hashed[given.base.checkpoint.path],
            keys=given.keys,
            jobs=how.jobs,
            sink=how.sink,
            cancel=how.cancel,
            memory=memory,
            workers=processes.get(path),
        )
        bad = [(proof, why) for proof in found.values() if (why := _doubt(proof))]
        if bad:
            proof, why = bad[0]
            more = f", and {len(bad) - 1} more of its modules" if len(bad) > 1 else ""
            raise UsageError(
                f"the donor {donor.id} cannot be used: {proof.module} {why}{more}",
                f"{NOTHING} Name another donor by --donor, or another base by --base.",
            )
        proofs[path] = found
    return proofs


def _doubt(proof: Proof) -> str | None:
    """Why a module must not be taken from its donor; None when it may."""
    match proof.status:
        case "proven":
            return None
        case "searched":
            lowest = LOWEST_SQNR_DB[proof.layout] if proof.layout else 0.0
            if proof.sqnr_db is not None and proof.sqnr_db >= lowest:
                return None
            return f"is {_decibels(proof)} from base, and a quantization of it has {lowest:.0f}"
        case "unknown":
            return f"could not be proven ({proof.reason})"
    return f"is not what base gives: {proof.wrong:,} of {proof.codes:,} codes or scales differ"


def _decibels(proof: Proof) -> str:
    return "unmeasurably far" if proof.sqnr_db is None else f"{proof.sqnr_db:.1f} dB"


def _dialect(composition: Composition, proofs: Mapping[str, Mapping[str, Proof]]) -> Dialect:
    """How modules that are made are worked out: as the donors' were, else as on a CPU."""
    named = Counter(
        proof.code_dialects[0]
        for donor, _ in composition.donated
        for proof in proofs[donor.checkpoint.path].values()
        if proof.code_dialects
    )
    dialects = {f"{each.host} {each.device}": each for each in ALL}
    found = dialects.get(named.most_common(1)[0][0]) if named else None
    return found or dialects.get(f"{composition.host} cpu", Dialect("BF16", "cpu"))


def _hashed(compositions: Sequence[Composition], how: How) -> dict[str, SchemeEvidence]:
    """Donors and bases with their digests, by path."""
    schemes: dict[str, SchemeEvidence] = {}
    for composition in compositions:
        for scheme in (composition.base, *(donor for donor, _ in composition.donated)):
            schemes[scheme.checkpoint.path] = scheme
    shards = [shard for scheme in schemes.values() for shard in scheme.checkpoint.shards]
    digests = digest_shards(shards, how.hashing, sink=how.sink, cancel=how.cancel)
    for path in {composition.base.checkpoint.path for composition in compositions}:
        base = schemes[path].checkpoint
        digests, _ = digest_parts(base, digests, how.hashing, sink=how.sink, cancel=how.cancel)
    return {path: scheme_evidence(scheme.checkpoint, digests) for path, scheme in schemes.items()}


def _fingerprint(composition: Composition, digests: Mapping[str, bytes]) -> str:
    """The fingerprint of what is to be written, from what was read for it."""
    pieces = [piece for shard in composition.shards for piece in shard.pieces]
    keys = keys_of(piece.name for piece in pieces)
    return fingerprint((keys[p.name], p.dtype, p.shape, digests[p.name]) for p in pieces)


def _provenance(
    plan: Plan,
    composition: Composition,
    written: str,
    hashed: Mapping[str, SchemeEvidence],
    tool: Tool,
) -> bytes:
    """Where the tensors come from; no clock and no path, so that the same inputs give the
    same bytes."""

    def side(scheme: SchemeEvidence) -> dict[str, Any]:
        return {
            "name": scheme.checkpoint.title,
            "fingerprint": hashed[scheme.checkpoint.path].fingerprint,
            "producer": scheme.quantization.producer if scheme.quantization else None,
        }

    modules = composition.base.coverage.modules
    document = {
        "schema": "ckptdiff.provenance/1",
        "tool": {"name": tool.name, "version": tool.version},
        "engine": plan.engine,
        "scheme": plan.scheme,
        "algorithm": plan.algorithm,
        "fingerprint": written,
        "base": side(composition.base),
        "donors": [
            side(donor) | {"modules": sorted(modules[key].name for key in keys)}
            for donor, keys in composition.donated
        ],
        "made_from_base": [m.module for m in plan.selected if m.source is None],
        "held_by_distance": [m.module for m in plan.selected if m.evidence == "distance"],
    }
    return (json.dumps(document, indent=2) + "\n").encode("ascii")
