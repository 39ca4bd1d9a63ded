"""What the CK1 rules share: they report defects that reading has already located."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ckptdiff.records.checkpoint import Defect, DefectKind
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.finding import Finding, Location, Need
from ckptdiff.rules.base import Rule


class ContainerRule(Rule):
    """A rule about the files of one checkpoint: every defect of one kind is a location."""

    kind: ClassVar[DefectKind]
    needs: ClassVar[tuple[Need, ...]] = ()

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            defects = defects_of(scheme, self.kind)
            if defects:
                yield self.finding(
                    [scheme],
                    self.describe(scheme, defects),
                    expected=defects[0].expected,
                    actual=defects[0].actual,
                    locations=[location(defect) for defect in defects],
                )

    def describe(self, scheme: SchemeEvidence, defects: tuple[Defect, ...]) -> str:
        """One sentence: the first defect, and how many more there are."""
        first = defects[0]
        what = f'tensor "{first.tensor}" {first.message}' if first.tensor else first.message
        where = "the checkpoint" if first.file == "." else first.file
        more = f", and {len(defects) - 1} more" if len(defects) > 1 else ""
        return f"{where}: {what}{more}"


def defects_of(scheme: SchemeEvidence, kind: DefectKind) -> tuple[Defect, ...]:
    """All defects of one kind, of the directory and of its shards."""
    return tuple(defect for defect in scheme.checkpoint.all_defects if defect.kind == kind)


def location(defect: Defect) -> Location:
    return Location(
        tensor=defect.tensor,
        shard=defect.file,
        offset=defect.offset,
        expected=defect.expected,
        actual=defect.actual if defect.actual is not None else defect.message,
    )
