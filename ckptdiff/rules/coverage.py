"""What CK301 and CK302 share: modules whose state on disk is not what the manifest says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Fix, Location, Need
from ckptdiff.rules.base import Rule


class CoverageRule(Rule):
    """A rule about one direction of disagreement; every module is a location."""

    needs: ClassVar[tuple[Need, ...]] = ("headers", "manifest")
    fix: ClassVar[Fix] = "reexport"
    should_be: ClassVar[str]

    @abstractmethod
    def wrong(self, scheme: SchemeEvidence) -> Iterable[Module]:
        """The modules that disagree with the manifest."""

    @abstractmethod
    def counts(self, scheme: SchemeEvidence, wrong: int) -> tuple[str, str, str]:
        """Message, what was expected and what is there, for `wrong` modules."""

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            modules = list(self.wrong(scheme))
            # That a scheme carries another one's layers explains all of them: CK503.
            if not modules or scheme.id in evidence.mislabelled:
                continue
            message, expected, actual = self.counts(scheme, len(modules))
            yield self.finding(
                [scheme],
                message,
                expected=expected,
                actual=actual,
                locations=[
                    Location(
                        module=module.name,
                        tensor=module.weight,
                        shard=module.shard,
                        expected=self.should_be,
                        actual=module.dtype,
                    )
                    for module in modules
                ],
            )
