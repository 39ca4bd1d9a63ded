"""Evidence and findings -> the rows of a report. Sorted here, so that every format agrees."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from ckptdiff.analysis.identity import blamed
from ckptdiff.analysis.ordering import natural
from ckptdiff.analysis.proving.writers import proof_row
from ckptdiff.records.checkpoint import HIDING, Checkpoint, Unread
from ckptdiff.records.evidence import Evidence, IdentityGroup, SchemeEvidence
from ckptdiff.records.finding import SEVERITIES, Finding, Skip
from ckptdiff.records.proof import Proof
from ckptdiff.records.report import (
    ActualRow,
    Counts,
    DeclaredRow,
    IdentityRow,
    SchemeRow,
    Status,
)
from ckptdiff.records.wording import plural


def scheme_rows(evidence: Evidence, findings: Sequence[Finding]) -> tuple[SchemeRow, ...]:
    """One row a scheme, in natural order of their ids."""
    letters = {id: group.letter for group in evidence.identity for id in group.schemes}
    worst = _worst(evidence, findings)
    return tuple(
        _scheme_row(scheme, letters.get(scheme.id), worst, evidence.proofs.get(scheme.id))
        for scheme in sorted(evidence.schemes, key=lambda s: natural(s.id))
    )


def identity_rows(groups: Sequence[IdentityGroup]) -> tuple[IdentityRow, ...]:
    """One row a fingerprint, in the order of their letters."""
    return tuple(
        IdentityRow(group.letter, group.fingerprint, group.schemes, group.nbytes)
        for group in groups
    )


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first; of the same severity, what concerns several schemes comes before
    what it leads to in each of them, then by code and scheme."""

    def key(finding: Finding) -> tuple[object, ...]:
        severity = SEVERITIES.index(finding.severity)
        return severity, len(finding.schemes) == 1, finding.code, [*map(natural, finding.schemes)]

    return tuple(sorted(findings, key=key))


def counts(
    schemes: int, findings: Sequence[Finding], ignored: int, skipped: int, unread: int
) -> Counts:
    by_severity = Counter(finding.severity for finding in findings)
    return Counts(
        schemes=schemes,
        errors=by_severity["error"],
        warnings=by_severity["warning"],
        infos=by_severity["info"],
        ignored=ignored,
        skipped=skipped,
        unread=unread,
    )


def all_unread(evidence: Evidence, elsewhere: Sequence[Unread]) -> tuple[Unread, ...]:
    """Everything that could not be looked at, with paths relative to ROOT."""
    found = list(elsewhere)
    for scheme in (*evidence.schemes, *([evidence.base] if evidence.base else [])):
        found += [Unread(_below(scheme.id, item.path), item.reason) for item in scheme.unread]
    return tuple(sorted(set(found), key=lambda item: (natural(item.path), item.reason)))


def hidden(checkpoint: Checkpoint) -> tuple[Unread, ...]:
    """Why tensors of a checkpoint are not known, for a report in which no rule says so."""
    return tuple(
        Unread(defect.file, defect.message)
        for defect in checkpoint.all_defects
        if defect.kind in HIDING
    )


def all_hidden(evidence: Evidence) -> dict[str, tuple[Unread, ...]]:
    """`hidden` of every scheme that has any, by its id, with paths relative to ROOT."""
    found = {scheme.id: hidden(scheme.checkpoint) for scheme in evidence.schemes}
    return {
        id: tuple(Unread(_below(id, item.path), item.reason) for item in items)
        for id, items in found.items()
        if items
    }


def not_recomputed(evidence: Evidence) -> tuple[Skip, ...]:
    """What kept weights from being recomputed, apart from what could not be read."""
    reasons: dict[tuple[str, str], int] = defaultdict(int)
    for scheme in evidence.schemes:
        for proof in evidence.proofs.get(scheme.id, {}).values():
            if proof.status == "unknown" and not proof.unread and not scheme.foreign:
                reasons[scheme.id, proof.reason or ""] += 1
    return tuple(
        Skip("CK207", id, f"{count} quantized weights were not recomputed: {reason}")
        for (id, reason), count in reasons.items()
    )


def not_compared(evidence: Evidence) -> tuple[Skip, ...]:
    """What could not be held against the base for how it lies there."""
    return tuple(
        Skip(
            "CK6",
            id,
            f"{plural(len(compared.apart), 'tensor')} of experts not compared with base: one has "
            "those of a layer in one tensor and the other one by one, and shapes, dtypes and names "
            "do not show how they go together",
        )
        for id, compared in evidence.against_base.items()
        if compared.apart
    )


def dtype_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """dtype -> bytes of tensor data, sorted by name."""
    total: dict[str, int] = defaultdict(int)
    for _, tensor, _ in checkpoint.items():
        total[tensor.dtype] += tensor.nbytes
    return dict(sorted(total.items()))


def _scheme_row(
    scheme: SchemeEvidence,
    letter: str | None,
    worst: Mapping[str, Status],
    proofs: Mapping[str, Proof] | None,
) -> SchemeRow:
    checkpoint, coverage = scheme.checkpoint, scheme.coverage
    has_headers = any(shard.header for shard in checkpoint.shards)
    bits = coverage.effective_bits
    return SchemeRow(
        id=scheme.id,
        family=scheme.family,
        algo=scheme.algorithm,
        producer=scheme.quantization.producer if scheme.quantization else "",
        bytes=checkpoint.nbytes,
        tensors=sum(len(shard.tensors) for shard in checkpoint.shards),
        modules=len(coverage.modules),
        declared=_declared_row(scheme),
        actual=ActualRow(
            quantized=len(coverage.quantized),
            total=len(coverage.scope),
            effective_bits=None if bits is None else round(bits, 4),
        )
        if has_headers
        else None,
        dtypes=dtype_bytes(checkpoint),
        fingerprint=scheme.fingerprint,
        identity=letter,
        status=_status(scheme, worst),
        proof=proof_row(proofs.values()) if proofs is not None else None,
    )


def _status(scheme: SchemeEvidence, worst: Mapping[str, Status]) -> Status:
    found = worst.get(scheme.id, "ok")
    return "unread" if scheme.unread and found != "error" else found


def _declared_row(scheme: SchemeEvidence) -> DeclaredRow | None:
    declared = scheme.coverage.declared
    if declared is None:
        return None
    if declared.selected is None or declared.dropped is None:
        return DeclaredRow(declared.percent, None, None)
    return DeclaredRow(
        percent=declared.percent,
        selected=len(declared.selected),
        total=len(declared.selected | declared.dropped),
    )


def _worst(evidence: Evidence, findings: Sequence[Finding]) -> dict[str, Status]:
    worst: dict[str, Status] = {}
    levels: tuple[Literal["warning", "error"], ...] = ("warning", "error")
    for severity in levels:
        for finding in findings:
            if finding.severity == severity:
                worst.update(dict.fromkeys(blamed(evidence, finding), severity))
    return worst


def _below(id: str, path: str) -> str:
    if id == ".":
        return path
    return id if path == "." else f"{id}/{path}"
