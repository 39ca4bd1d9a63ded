"""How a sweep is judged: read, look, run the rules, sum up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ckptdiff.analysis import summary
from ckptdiff.analysis.verdict import verdict
from ckptdiff.api.common import base_row, tool
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.reading import read_sweep, relative_id
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Severity, Skip
from ckptdiff.records.report import CHECK_SCHEMA, CheckReport, IgnoredFinding
from ckptdiff.records.request import Request
from ckptdiff.records.sweep import Sweep
from ckptdiff.rules.engine import judge, set_aside
from ckptdiff.rules.registry import RULES, matching
from ckptdiff.sources.cache import Cache


def judged(
    request: Request,
    *,
    store: Cache | None,
    rehash: bool,
    jobs: int | None,
    sink: Sink,
    cancel: CancelToken,
) -> CheckReport:
    """The report that `request` asks for. Raises as `check` does.

    `store` remembers digests (None: nothing is remembered), `rehash` does not believe it.
    """
    rules = matching(request.select)
    for item in request.ignore:
        matching((item.code,))
    sweep = read_sweep(
        Path(request.root),
        base=None if request.base is None else Path(request.base),
        base_found_by=request.base_found_by,
        sink=sink,
        cancel=cancel,
    )
    scan = any("values" in rule.needs for rule in rules)
    how = Hashing(store, rehash, scan, jobs) if request.hashes else None
    # The base's tensors are read only when a rule compares them.
    compare = any({"hashes", "base"} <= set(rule.needs) for rule in rules)
    evidence, lost = look(sweep, how, compare=compare, sink=sink, cancel=cancel)
    findings, skips = judge(evidence, rules)
    kept, ignored = set_aside(summary.sort_findings(findings), request.ignore)
    unread = summary.all_unread(evidence, sweep.unread + lost)
    unread += _unmet(sweep, evidence, request.require, request.expect)
    if sweep.base is None:
        skips += (Skip("CK6", ".", f"no base: {sweep.base_note}"),)
    return CheckReport(
        schema=CHECK_SCHEMA,
        tool=tool(),
        root=request.root,
        config=request.config and relative_id(Path(request.config), Path(request.root)),
        base=base_row(sweep),
        verdict=verdict(
            evidence,
            kept,
            [finding for finding, _ in ignored],
            unread,
            fail_on=threshold(request.fail_on),
            all_rules=len(rules) == len(RULES),
        ),
        schemes=summary.scheme_rows(evidence, kept),
        identity=summary.identity_rows(evidence),
        findings=kept,
        skipped=skips,
        ignored=tuple(IgnoredFinding.of(finding, reason) for finding, reason in ignored),
        unread=unread,
        passed_over=sweep.passed_over,
        counts=summary.counts(len(evidence.schemes), kept, len(ignored), len(skips), len(unread)),
    )


def threshold(fail_on: str | None) -> Severity:
    """The severity from which on a verdict is "fail"; "never" leaves the verdict honest."""
    return "warning" if fail_on == "warning" else "error"


def _unmet(
    sweep: Sweep, evidence: Evidence, require: Sequence[str], expect: int | None
) -> tuple[Unread, ...]:
    """What was asked for and is not there: it could not be looked at."""
    unmet = []
    if "base" in require and sweep.base is None:
        unmet.append(Unread(".", f"a base is required: {sweep.base_note}"))
    if "manifest" in require:
        unmet += [
            Unread(scheme.id, "a coverage manifest is required, and there is none")
            for scheme in evidence.schemes
            if not scheme.checkpoint.coverage and not scheme.is_baseline
        ]
    if expect is not None and len(evidence.schemes) < expect:
        unmet.append(Unread(".", f"{len(evidence.schemes)} schemes found, {expect} expected"))
    return tuple(unmet)
