"""What every rule is made of. A rule reads `Evidence` and nothing else: no IO of its own."""

from __future__ import annotations

import inspect
import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import xxhash

from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Fix, Location, Need, RuleInfo, Severity


class Rule(ABC):
    """One row of the rule table. The docstring of a subclass is its manual."""

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity]
    since: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = ("headers",)
    fix: ClassVar[Fix] = "none"

    @abstractmethod
    def check(self, evidence: Evidence) -> Iterator[Finding]:
        """The findings. Schemes that lack what the rule `needs` are not in `evidence`."""

    @classmethod
    def info(cls) -> RuleInfo:
        """The rule as a record, for tables and manuals."""
        manual = inspect.getdoc(cls) or ""
        return RuleInfo(
            code=cls.code,
            name=cls.name,
            severity=cls.severity,
            since=cls.since,
            needs=cls.needs,
            fix=cls.fix,
            summary=manual.partition("\n")[0].rstrip("."),
            manual=manual,
        )

    def finding(
        self,
        schemes: Iterable[SchemeEvidence | str],
        message: str,
        *,
        expected: str | None = None,
        actual: str | None = None,
        locations: Iterable[Location] = (),
    ) -> Finding:
        """A finding of this rule; locations are sorted, the fingerprint computed."""
        ids = tuple(s if isinstance(s, str) else s.id for s in schemes)
        places = tuple(sorted(set(locations), key=_sort_key))
        return Finding(
            code=self.code,
            name=self.name,
            severity=self.severity,
            schemes=ids,
            message=message,
            next_step=f"ckptdiff rule {self.code}",
            expected=expected,
            actual=actual,
            locations=places,
            fingerprint=_fingerprint(self.code, ids, places),
        )

    def finding_at(
        self, scheme: SchemeEvidence, message: str, places: Sequence[Location]
    ) -> Finding:
        """One finding for all `places`; what was expected and what is there is the first one's."""
        first = places[0]
        return self.finding(
            [scheme], message, expected=first.expected, actual=first.actual, locations=places
        )


def repaired(rule: type[Rule], finding: Finding, evidence: Evidence) -> Finding:
    """The finding with the command that plans the repair, where there is one.

    Re-exporting needs a base and a manifest that says what to select. Of schemes that share
    their weights, the one that is what it says needs no repair.
    """
    if rule.fix != "reexport" or evidence.base is None:
        return finding
    known = {scheme.id: scheme for scheme in evidence.schemes}
    schemes = [known[id] for id in finding.schemes if id in known]
    if len(schemes) > 1:
        schemes = [scheme for scheme in schemes if not scheme.coverage.agrees]
    able = [s for s in schemes if s.has_manifest and s.foreign is None]
    if not able or len(able) < len(schemes):
        return finding
    ids = [*(scheme.id for scheme in able), evidence.base.checkpoint.id]
    *paths, base = (shlex.quote(_below(evidence.root, id)) for id in ids)
    return replace(
        finding, next_step=f"ckptdiff reexport {' '.join(paths)} --base {base} --dry-run"
    )


def _below(root: str, id: str) -> str:
    """The path of a checkpoint as somebody types it who typed `root`; `..` is left for the
    system to follow, because ROOT may be a link."""
    path = root if id == "." else id if root == "." else f"{root.rstrip('/')}/{id}"
    return f"./{path}" if path.startswith("-") else path


def _sort_key(location: Location) -> tuple[tuple[bool, str | int], ...]:
    fields = (
        location.module,
        location.tensor,
        location.shard,
        location.offset,
        location.expected,
        location.actual,
    )
    return tuple((value is not None, "" if value is None else value) for value in fields)


def _fingerprint(code: str, schemes: tuple[str, ...], locations: tuple[Location, ...]) -> str:
    """What tells whether two runs found the same fault: rule, schemes and places."""
    places = [[p.module, p.tensor, p.shard, p.offset] for p in locations]
    return xxhash.xxh3_128_hexdigest(json.dumps([code, schemes, places]).encode())
