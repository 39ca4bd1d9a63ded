"""Runs rules over evidence: prerequisites first, so that one fault is told once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckptdiff.events import CancelToken
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Ignore, Need, Skip
from ckptdiff.rules.base import Rule, repaired


def judge(
    evidence: Evidence, rules: Iterable[type[Rule]], cancel: CancelToken
) -> tuple[tuple[Finding, ...], tuple[Skip, ...]]:
    """Findings and skips, each sorted by code and scheme. Raises `Cancelled` between two rules,
    and between two findings of one."""
    findings: list[Finding] = []
    skips: list[Skip] = []
    for rule in rules:
        cancel.raise_if_cancelled()
        able = []
        for scheme in evidence.schemes:
            reason = _missing(rule.needs, scheme, evidence)
            if reason is None:
                able.append(scheme)
            else:
                skips.append(Skip(rule.code, scheme.id, reason))
        if able:
            seen = replace(evidence, schemes=tuple(able))
            for finding in rule().check(seen):
                cancel.raise_if_cancelled()
                findings.append(repaired(rule, finding, seen))
    return tuple(findings), tuple(skips)


def set_aside(
    findings: Sequence[Finding], ignores: Sequence[Ignore]
) -> tuple[tuple[Finding, ...], tuple[tuple[Finding, str], ...]]:
    """Findings that count, and those that somebody decided to ignore, with the reason."""
    kept, ignored = [], []
    for finding in findings:
        reason = next((i.reason for i in ignores if _covers(i, finding)), None)
        if reason is None:
            kept.append(finding)
        else:
            ignored.append((finding, reason))
    return tuple(kept), tuple(ignored)


def _covers(ignore: Ignore, finding: Finding) -> bool:
    """A finding about several schemes is ignored only when all of them are."""
    named = not ignore.schemes or set(finding.schemes) <= set(ignore.schemes)
    return named and (
        finding.name == ignore.code.lower() or finding.code.startswith(ignore.code.upper())
    )


def _missing(needs: tuple[Need, ...], scheme: SchemeEvidence, evidence: Evidence) -> str | None:
    """Why a rule with these needs cannot judge the scheme; None when it can."""
    reasons = {
        "headers": _no_headers(scheme),
        "manifest": _no_manifest(scheme),
        "hashes": _no_hashes(scheme, evidence),
        "base": None if evidence.base else "no base was found",
        "values": _no_values(scheme, evidence),
        "modelopt": f"it was quantized by {scheme.foreign}" if scheme.foreign else None,
        "proof": _no_proof(scheme, evidence),
    }
    return next((reason for need in needs if (reason := reasons[need])), None)


def _no_headers(scheme: SchemeEvidence) -> str | None:
    if any(shard.header for shard in scheme.checkpoint.shards):
        return None
    return "no header could be read" if scheme.checkpoint.shards else "there are no weights"


def _no_manifest(scheme: SchemeEvidence) -> str | None:
    if scheme.checkpoint.coverage:
        return None
    if scheme.is_baseline:
        return "it is the baseline of a search and declares no subset"
    if any("_coverage_from_baseline" in name for name in scheme.checkpoint.documents):
        return "its coverage manifest could not be read"
    return "it has no coverage manifest"


def _no_values(scheme: SchemeEvidence, evidence: Evidence) -> str | None:
    if not evidence.hashed:
        return "tensors were not read"
    return None if scheme.digests else "none of its tensors could be read"


def _no_proof(scheme: SchemeEvidence, evidence: Evidence) -> str | None:
    if scheme.id in evidence.proofs:
        return None
    return "no base was found" if evidence.base is None else "its weights were not recomputed"


def _no_hashes(scheme: SchemeEvidence, evidence: Evidence) -> str | None:
    if not evidence.hashed:
        return "tensors were not hashed"
    return None if scheme.fingerprint else "not all of its tensors could be hashed"
