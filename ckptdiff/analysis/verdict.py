"""The one sentence that a person on call reads first, computed from what was found.

Nothing is assumed: every number comes from manifests and tensors of this sweep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ckptdiff.analysis.identity import blamed
from ckptdiff.analysis.ordering import natural
from ckptdiff.formats.names import declared_share
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence, IdentityGroup, SchemeEvidence
from ckptdiff.records.finding import SEVERITIES, Finding, Severity
from ckptdiff.records.report import Verdict
from ckptdiff.records.wording import plural

_COVERAGE = ("CK301", "CK302")


def verdict(
    evidence: Evidence,
    findings: Sequence[Finding],
    ignored: Sequence[Finding],
    unread: Sequence[Unread],
    *,
    fail_on: Severity,
    all_rules: bool,
) -> Verdict:
    """Pass or fail at `fail_on`, whether everything was looked at, and what to rely on.

    `ignored` are findings that do not count; `all_rules` is False when only some rules ran.
    """
    failed = any(at_least(f.severity, fail_on) for f in findings)
    sentence = _fault(evidence, findings) if findings else None
    if sentence is None:
        sentence = _no_fault(evidence, findings, all_rules)
    if ignored:
        sentence += f"; {plural(len(ignored), 'finding')} ignored"
    if unread:
        sentence += f"; {_unread(unread)}"
    return Verdict(
        status="fail" if failed else "pass",
        complete=not unread,
        sentence=sentence,
        safe=safe_schemes(evidence, (*findings, *ignored)) if all_rules else (),
    )


def at_least(severity: Severity, threshold: Severity) -> bool:
    return SEVERITIES.index(severity) <= SEVERITIES.index(threshold)


def safe_schemes(evidence: Evidence, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Schemes that every rule judged, that were read whole, and that no error speaks against.

    The reference of a group of identical schemes is what it says it is, if its tensors
    agree with its own manifest; the finding is about the others. Nothing is safe that was
    not hashed, or that another exporter made, whose formats are not judged, or that shares
    its weights with a scheme of another `topNN` while no manifest says which is right.
    """
    faulty = {id for f in findings if f.severity == "error" for id in blamed(evidence, f)}
    faulty |= _unexplained(evidence)
    return tuple(
        s.id
        for s in evidence.schemes
        if s.id not in faulty and not s.unread and not s.foreign and s.fingerprint
    )


def _unexplained(evidence: Evidence) -> set[str]:
    schemes = {scheme.id: scheme for scheme in evidence.schemes}
    found = set()
    for group in evidence.identity:
        silent = [schemes[id] for id in group.schemes if not schemes[id].has_manifest]
        if len({declared_share(s.checkpoint.title) for s in silent} - {None}) > 1:
            found |= {scheme.id for scheme in silent}
    return found


def _fault(evidence: Evidence, findings: Sequence[Finding]) -> str | None:
    """The worst thing that was found, None when nothing worse than a warning was."""
    errors = [f for f in findings if f.severity == "error"]
    conflicting = [group for group in evidence.identity if group.conflicting]
    if conflicting and any(f.code == "CK501" for f in errors):
        return _copies(evidence, conflicting)
    if not evidence.hashed and (same := _same_layers(evidence, errors)):
        return _claims(evidence, same, f"{len(same)} schemes quantize the same layers")
    if not errors:
        return None
    schemes = sorted({id for f in errors for id in f.schemes}, key=natural)
    count = f"{len(schemes)} of {plural(len(evidence.schemes), 'scheme')}"
    names = _names(evidence, schemes)
    if all(f.code in _COVERAGE or f.code == "CK503" for f in errors):
        does, manifest = ("does", "its manifest declares")
        if len(schemes) > 1:
            does, manifest = ("do", "their manifests declare")
        return f"{count} {does} not quantize the layers that {manifest}: {names}"
    first = errors[0]
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"{count} cannot be relied on: {names} ({first.code} {first.name}{more})"


def _copies(evidence: Evidence, groups: Sequence[IdentityGroup]) -> str:
    largest = max(groups, key=lambda group: len(group.schemes))
    count = len(largest.schemes)
    sentence = _claims(evidence, largest.schemes, f"{count} schemes carry one set of weights")
    if len(groups) > 1:
        others = plural(len(groups) - 1, "other group")
        sentence += f"; {others} of schemes {'is' if len(groups) == 2 else 'are'} copies too"
    return sentence


def _claims(evidence: Evidence, ids: Iterable[str], what: str) -> str:
    """`what`, with the range that the manifests declare against what the tensors hold."""
    members = [s for s in evidence.schemes if s.id in set(ids)]
    declared = [s.coverage.declared for s in members if s.coverage.declared]
    percents = sorted(d.percent for d in declared if d.percent is not None)
    recipes = [d.recipes_total for d in declared if d.recipes_total is not None]
    held = members[0].coverage
    holds = f"their tensors hold {len(held.quantized)} of {plural(len(held.scope), 'module')}"
    if not percents or not recipes:
        return f"{what}: {holds}"
    span = f"{percents[0]:g}"
    if percents[-1] != percents[0]:
        span += f"-{percents[-1]:g}"
    return f"{what}: their manifests declare {span} % of {max(recipes)} recipes, {holds}"


def _same_layers(evidence: Evidence, errors: Sequence[Finding]) -> list[str]:
    """The largest set of schemes with one actual and several declared sets, from headers."""
    if not any(f.code in _COVERAGE for f in errors):
        return []
    by_actual: dict[tuple[str, frozenset[str]], list[SchemeEvidence]] = defaultdict(list)
    for scheme in evidence.schemes:
        if scheme.has_manifest:
            by_actual[scheme.family, scheme.coverage.quantized].append(scheme)
    groups = [g for g in by_actual.values() if len({s.coverage.selected for s in g}) > 1]
    return [scheme.id for scheme in max(groups, key=len, default=[])]


def _no_fault(evidence: Evidence, findings: Sequence[Finding], all_rules: bool) -> str:
    count = len(evidence.schemes)
    schemes = plural(count, "scheme")
    followed = sum(s.coverage.agrees for s in evidence.schemes)
    judged = sum(s.has_manifest for s in evidence.schemes)
    parts = []
    if followed == judged and judged:
        parts.append(
            f"{followed if followed < count else 'all'} follow their manifests"
            if count > 1
            else "it follows its manifest"
        )
    if not judged:
        them = "it" if count == 1 else "they"
        parts.append(f"no coverage manifest says what {them} should quantize")
    copies = [g for g in evidence.identity if len(g.schemes) > 1]
    if copies:
        size = sum(len(group.schemes) for group in copies)
        sets = "one set" if len(copies) == 1 else f"{len(copies)} sets"
        parts.append(f"{size} of them carry {sets} of weights")
    elif evidence.hashed and count > 1 and all(s.fingerprint for s in evidence.schemes):
        parts.append("no two have the same weights")
    if not evidence.hashed:
        parts.append("weights were not compared")
    foreign = sorted({s.foreign for s in evidence.schemes if s.foreign})
    if foreign:
        parts.append(f"formats of {', '.join(foreign)} are not judged")
    if evidence.base is None and any(s.coverage.quantized for s in evidence.schemes):
        parts.append("no base to hold them against" if count > 1 else "no base to hold it against")
    warnings = sum(f.severity == "warning" for f in findings)
    found = plural(warnings, "warning") if warnings else "no fault found"
    found += "" if all_rules else " by the rules that ran"
    return f"{schemes}, {found}" + (": " + ", ".join(parts) if parts else "")


def _unread(unread: Sequence[Unread]) -> str:
    """What is missing, so that the sentence before it is not the whole truth."""
    if len(unread) > 1:
        return f"{len(unread)} things could not be looked at, so this is not the whole truth"
    path, reason = unread[0].path, unread[0].reason
    what = reason if path == "." else f"{path} could not be read ({reason})"
    return f"{what}, so this is not the whole truth"


def _names(evidence: Evidence, schemes: Sequence[str], most: int = 4) -> str:
    titles = {scheme.id: scheme.checkpoint.title for scheme in evidence.schemes}
    ids = [titles[id] if id == "." else id for id in schemes]
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more
