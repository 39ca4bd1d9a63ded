"""What every rule is made of. A rule reads `Evidence` and nothing else: no IO of its own."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
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
