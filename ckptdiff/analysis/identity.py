"""Which schemes are the same, which may be, and which carry another one's label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from ckptdiff.analysis.ordering import natural
from ckptdiff.records.evidence import Evidence, IdentityGroup, SchemeEvidence
from ckptdiff.records.finding import Finding


def identity_groups(schemes: Sequence[SchemeEvidence]) -> tuple[IdentityGroup, ...]:
    """Schemes grouped by fingerprint, lettered in the order of their first members.

    A scheme without a fingerprint is in no group: nothing is known about it.
    """
    members: dict[str, list[SchemeEvidence]] = defaultdict(list)
    for scheme in sorted(schemes, key=lambda s: natural(s.id)):
        if scheme.fingerprint is not None:
            members[scheme.fingerprint].append(scheme)
    return tuple(
        IdentityGroup(
            letter=letter_of(position),
            fingerprint=fingerprint,
            schemes=tuple(scheme.id for scheme in group),
            nbytes=group[0].checkpoint.nbytes,
            conflicting=len(_claims(group)) > 1,
            reference=_reference(group).id,
        )
        for position, (fingerprint, group) in enumerate(members.items())
    )


def letter_of(position: int) -> str:
    """A, B, … Z, AA, AB, … for 0, 1, …

    >>> letter_of(0), letter_of(25), letter_of(26)
    ('A', 'Z', 'AA')
    """
    letters = ""
    position += 1
    while position:
        position, digit = divmod(position - 1, 26)
        letters = ascii_uppercase[digit] + letters
    return letters


def _claims(group: Sequence[SchemeEvidence]) -> set[frozenset[str]]:
    """The different sets of modules that the members say they quantize.

    A baseline claims what it holds: the search chose it. A scheme without a manifest
    claims nothing, since percentages are not compared.
    """
    claims = {s.coverage.selected for s in group if s.coverage.selected is not None}
    return claims | {s.coverage.quantized for s in group if s.is_baseline}


def _reference(group: Sequence[SchemeEvidence]) -> SchemeEvidence:
    agreeing = [s for s in group if s.coverage.agrees]
    baselines = [s for s in group if s.is_baseline]
    return (agreeing or baselines or list(group))[0]


def mislabelled(
    schemes: Sequence[SchemeEvidence], groups: Sequence[IdentityGroup]
) -> Mapping[str, str]:
    """scheme -> the scheme of its family whose declared set it carries instead of its own.

    Members of an identity group are left out: that they are the same says more.
    """
    shared = {id for group in groups if len(group.schemes) > 1 for id in group.schemes}
    owners: dict[tuple[str, frozenset[str]], str] = {}
    for scheme in sorted(schemes, key=lambda s: natural(s.id)):
        if scheme.coverage.selected:
            owners.setdefault((scheme.family, scheme.coverage.selected), scheme.id)
    found = {}
    for scheme in schemes:
        coverage = scheme.coverage
        if scheme.id in shared or not scheme.has_manifest or coverage.agrees:
            continue
        owner = owners.get((scheme.family, coverage.quantized))
        if owner is not None and coverage.complete:
            found[scheme.id] = owner
    return found


def blamed(evidence: Evidence, finding: Finding) -> frozenset[str]:
    """The schemes of a finding that are at fault.

    All of them, except that the reference of a group with identical weights is what it
    says it is, if its tensors agree with its own manifest or it is the baseline: then the
    finding is about the others.
    """
    group = next((g for g in evidence.identity if g.schemes == finding.schemes), None)
    if group is None or not group.conflicting:
        return frozenset(finding.schemes)
    reference = next(s for s in evidence.schemes if s.id == group.reference)
    kept = reference.coverage.agrees or reference.is_baseline
    return frozenset(finding.schemes) - ({group.reference} if kept else set())
