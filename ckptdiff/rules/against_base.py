"""What the CK6 rules share: each reports one kind of difference from the base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ckptdiff.records.against_base import Pair
from ckptdiff.records.checkpoint import Tensor
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location, Need
from ckptdiff.rules.base import Rule


class BaseRule(Rule):
    """A rule about tensors that should be base's: every pair of one kind is a location."""

    kind: ClassVar[str]
    message: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = ("headers", "base")

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            compared = evidence.against_base.get(scheme.id)
            pairs: tuple[Pair, ...] = getattr(compared, self.kind) if compared else ()
            if pairs:
                yield self.finding(
                    [scheme],
                    self.message.format(count=len(pairs)),
                    expected=self.expected(pairs[0]),
                    actual=self.actual(pairs[0]),
                    locations=[
                        Location(
                            tensor=pair.name,
                            shard=pair.shard,
                            expected=self.expected(pair),
                            actual=self.actual(pair),
                        )
                        for pair in pairs
                    ],
                )

    def expected(self, pair: Pair) -> str:
        return "no such tensor" if pair.base is None else spell(pair.base)

    def actual(self, pair: Pair) -> str:
        return "no such tensor" if pair.tensor is None else spell(pair.tensor)


def spell(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
