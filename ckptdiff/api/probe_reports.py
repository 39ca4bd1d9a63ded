"""The reports of one probe: as it grows, and whole.

A probe may have a thousand schemes and is heard of after each. What a scheme costs to report, the
draws of its intervals above all, is computed when its numbers come and kept. What is computed by
the child, and how, must not move in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptdiff.analysis import probing as summing
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.ordering import natural
from ckptdiff.api.common import tool
from ckptdiff.jobs.probing import ProbeOptions, ProbeRun
from ckptdiff.records.checkpoint import Checkpoint, Unread
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.probe import (
    PROBE_SCHEMA,
    CurveRow,
    ProbeReport,
    ProbeResult,
    Prompt,
    PromptsRow,
)


class ProbeReports:
    """Makes reports of what a run has found, once it has computed its reference.

    `prompts` are those that are used, of `loaded` in `source`; `notes` and `unread` are what
    was known before the run.
    """

    def __init__(
        self,
        reference: Checkpoint,
        others: Sequence[Checkpoint],
        prompts: Sequence[Prompt],
        options: ProbeOptions,
        *,
        source: str,
        loaded: int,
        notes: tuple[str, ...],
        unread: tuple[Unread, ...],
    ) -> None:
        self._reference = reference
        self._others = sorted(others, key=lambda other: natural(other.id))
        self._prompts = prompts
        self._options = options
        self._source, self._loaded = source, loaded
        self._notes, self._unread = notes, unread
        self._digests: Mapping[str, ShardDigests] | None = None
        self._schemes: dict[str, SchemeEvidence] = {}
        self._rows: dict[str, ProbeResult] = {}

    def part(self, run: ProbeRun) -> ProbeReport:
        """What is known by now. Whether KL rises is left open until all schemes are there."""
        schemes = self._evidence(run)
        for id in (run.scores.keys() | run.same.keys()) - self._rows.keys():
            # A copy is told by the scheme that was computed, which is the first by name.
            pair = {run.same.get(id, id), id}
            rows = self._results([schemes[each] for each in pair], run)
            self._rows |= {row.scheme: row for row in rows}
        rows = tuple(self._rows[id] for id in schemes if id in self._rows)
        curves = tuple(
            CurveRow(family, tuple(point.scheme for point in points), None, None)
            for family, points in summing.curve_points(rows).items()
        )
        return self._report(run, rows, curves)

    def whole(self, run: ProbeRun) -> ProbeReport:
        """All that there is, of a run that is over."""
        rows = self._results(list(self._evidence(run).values()), run)
        return self._report(run, rows, summing.curves(rows))

    def _evidence(self, run: ProbeRun) -> Mapping[str, SchemeEvidence]:
        """The schemes by their ids, in natural order; made again once there are digests."""
        digests = run.digests
        if self._digests is not digests:
            self._schemes = {
                other.id: scheme_evidence(other, digests or None) for other in self._others
            }
            self._digests = digests
        return self._schemes

    def _results(self, schemes: Sequence[SchemeEvidence], run: ProbeRun) -> tuple[ProbeResult, ...]:
        assert run.reference is not None
        return summing.results(
            schemes,
            run.scores,
            run.perplexity,
            run.same,
            raw=self._options.raw,
            noise=run.reference.noise.kl,
            perplexity=run.reference.perplexity,
        )

    def _report(
        self, run: ProbeRun, rows: tuple[ProbeResult, ...], curves: tuple[CurveRow, ...]
    ) -> ProbeReport:
        reference, options = run.reference, self._options
        assert reference is not None
        schemes = self._schemes.values()
        codes = max((len(s.coverage.quantized) for s in schemes), default=0)
        failed = (Unread(id, reason) for id, reason in sorted(run.failed.items()))
        return ProbeReport(
            schema=PROBE_SCHEMA,
            tool=tool(),
            reference=self._reference.id,
            prompts=PromptsRow(
                count=len(self._prompts),
                source=self._source,
                loaded=self._loaded,
                images=sum(bool(prompt.images) for prompt in self._prompts),
                batches=reference.batches,
                tokens=reference.tokens,
            ),
            device=reference.device,
            dtype=reference.dtype,  # type: ignore[arg-type]
            activations=options.activations,  # type: ignore[arg-type]
            raw=options.raw,
            noise=reference.noise,
            perplexity=reference.perplexity,
            results=rows,
            curves=curves,
            worst=summing.worst(rows, self._prompts),
            verdict=summing.verdict(
                rows,
                curves,
                raw=options.raw,
                codes=codes,
                noise=reference.noise.kl,
                lost=[id for id in self._schemes if id in run.failed],
            ),
            notes=(*self._notes, *self._doubts(run)),
            unread=(*self._unread, *failed),
        )

    def _doubts(self, run: ProbeRun) -> list[str]:
        """What the numbers do not tell, and why."""
        assert run.reference is not None
        doubts = []
        unhashed = [
            scheme.id
            for scheme in self._schemes.values()
            if scheme.fingerprint is None and scheme.id not in run.failed
        ]
        if self._digests and unhashed:
            doubts.append(
                f"not all of {', '.join(unhashed)} could be hashed: copies would not be seen"
            )
        if len(self._prompts) == 1:
            doubts.append("there is one prompt: intervals that have no width say nothing of others")
        if self._options.perplexity and run.reference.perplexity is None:
            doubts.append("no prompt has a second token: there is no perplexity")
        return doubts
