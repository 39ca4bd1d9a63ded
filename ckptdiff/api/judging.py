"""How a sweep is judged: read, look, run the rules, sum up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ckptdiff.analysis import summary
from ckptdiff.analysis.verdict import verdict
from ckptdiff.api.common import base_row, tool
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.reading import read_sweep, relative_id
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Severity, Skip
from ckptdiff.records.report import CHECK_SCHEMA, CheckReport, IdentityRow, IgnoredFinding
from ckptdiff.records.request import Request
from ckptdiff.records.sweep import Sweep
from ckptdiff.rules.base import Rule
from ckptdiff.rules.engine import judge, set_aside
from ckptdiff.rules.registry import RULES, matching
from ckptdiff.sources.cache import Cache


def judged(
    request: Request,
    *,
    store: Cache | None,
    rehash: bool,
    jobs: int | None,
    on_identity: Callable[[tuple[IdentityRow, ...]], None] | None = None,
    sink: Sink,
    cancel: CancelToken,
) -> CheckReport:
    """The report that `request` asks for. Raises as `check` does.

    `store` remembers digests (None: nothing is remembered), `rehash` does not believe it.
    """
    rules = _chosen(request)
    _matching(tuple(item.code for item in request.ignore), request)
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
    compare = request.deep or any({"hashes", "base"} <= set(rule.needs) for rule in rules)
    evidence, lost = look(
        sweep,
        how,
        compare=compare,
        deep=request.deep,
        jobs=jobs,
        on_identity=on_identity and (lambda groups: on_identity(summary.identity_rows(groups))),
        sink=sink,
        cancel=cancel,
    )
    findings, skips = judge(evidence, rules, cancel)
    kept, ignored = set_aside(summary.sort_findings(findings), request.ignore)
    unread = summary.all_unread(evidence, sweep.unread + lost)
    unread += _unmet(sweep, evidence, request)
    skips += summary.not_recomputed(evidence) + summary.not_compared(evidence)
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
            all_rules=len(rules) == len(_running(RULES, request)),
        ),
        schemes=summary.scheme_rows(evidence, kept),
        identity=summary.identity_rows(evidence.identity),
        findings=kept,
        skipped=skips,
        ignored=tuple(IgnoredFinding.of(finding, reason) for finding, reason in ignored),
        unread=unread,
        passed_over=sweep.passed_over,
        counts=summary.counts(len(evidence.schemes), kept, len(ignored), len(skips), len(unread)),
    )


def _chosen(request: Request) -> tuple[type[Rule], ...]:
    """The rules to run. Raises `UsageError` when those that are selected cannot."""
    matched = _matching(request.select, request)
    rules = _running(matched, request)
    if not rules:
        raise UsageError(
            f"{matched[0].code} judges weights that are recomputed from the base",
            "Add --deep (in Python, deep=True).",
        )
    if not request.hashes and all("hashes" in rule.needs for rule in rules):
        raise UsageError(
            f"{rules[0].code} judges hashes, and --no-hash asks for none",
            "Leave --no-hash out (in Python, hashes=True).",
        )
    return rules


def _matching(codes: tuple[str, ...], request: Request) -> tuple[type[Rule], ...]:
    try:
        return matching(codes)
    except UsageError as error:
        if not request.config:
            raise
        where = f"Codes are taken from {request.config} as well."
        raise UsageError(error.message, f"{error.next_step} {where}") from None


def _running(rules: tuple[type[Rule], ...], request: Request) -> tuple[type[Rule], ...]:
    """Those of some rules that `request` gives what they need: only it can ask for proofs."""
    return tuple(rule for rule in rules if request.deep or "proof" not in rule.needs)


def threshold(fail_on: str | None) -> Severity:
    """The severity from which on a verdict is "fail"; "never" leaves the verdict honest."""
    return "warning" if fail_on == "warning" else "error"


def _unmet(sweep: Sweep, evidence: Evidence, request: Request) -> tuple[Unread, ...]:
    """What was asked for and is not there: it could not be looked at."""
    unmet = []
    if "base" in request.require and sweep.base is None:
        unmet.append(Unread(".", f"a base is required: {sweep.base_note}"))
    elif request.deep and sweep.base is None:
        unmet.append(Unread(".", f"weights are recomputed from a base: {sweep.base_note}"))
    if request.deep:
        unmet += [Unread(skip.scheme, skip.reason) for skip in summary.not_compared(evidence)]
    if "manifest" in request.require:
        unmet += [
            Unread(scheme.id, "a coverage manifest is required, and there is none")
            for scheme in evidence.schemes
            if not scheme.checkpoint.coverage and not scheme.is_baseline
        ]
    if request.expect is not None and len(evidence.schemes) < request.expect:
        found = len(evidence.schemes)
        unmet.append(Unread(".", f"{found} schemes found, {request.expect} expected"))
    return tuple(unmet)
