"""`check`: the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ckptdiff.analysis import summary
from ckptdiff.analysis.verdict import verdict
from ckptdiff.api.common import StrPath, base_row, tool
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.reading import read_sweep, relative_id
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Ignore, Severity, Skip
from ckptdiff.records.report import CHECK_SCHEMA, CheckReport, IgnoredFinding
from ckptdiff.records.settings import FAIL_ON, FailOn, Settings
from ckptdiff.records.sweep import Sweep
from ckptdiff.rules.engine import judge, set_aside
from ckptdiff.rules.registry import RULES, matching
from ckptdiff.sources.cache import Cache

Requirement = Literal["base", "manifest"]


def check(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    hashes: bool = True,
    select: Sequence[str] = (),
    ignore: Sequence[str | Ignore] = (),
    fail_on: FailOn | None = None,
    require: Sequence[Requirement] = (),
    expect: int | None = None,
    settings: Settings | None = None,
    cache: bool = True,
    rehash: bool = False,
    jobs: int | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> CheckReport:
    """Read every scheme below `root`, run the rules, return the report.

    `base` is the full-precision checkpoint (found by itself where it can be), `hashes=False`
    judges from headers alone, `select` and `ignore` take codes or their beginnings,
    `require` makes a missing base or manifest count as unread, `expect` is the least number
    of schemes, `jobs` the number of threads. `settings` supplies what is not given. Digests
    are remembered between runs unless `cache=False`; `rehash` reads everything again.

    Raises `RootError`, `BaseError`, `UsageError` for a request that cannot be carried out
    and `Cancelled` when `cancel` is set; never for what a checkpoint contains.
    """
    _require_known(select, ignore, fail_on, require, expect, jobs)
    settings = settings or Settings()
    cancel = cancel or CancelToken()
    rules = matching(tuple(select) or settings.select)
    ignores = [_ignore(item) for item in ignore] + list(settings.ignore)
    for item in ignores:
        matching((item.code,))
    found_by = "--base" if base is not None else "ckptdiff.toml"
    chosen = base if base is not None else settings.base
    sweep = read_sweep(
        Path(root),
        base=None if chosen is None else Path(chosen),
        base_found_by=found_by,
        sink=sink,
        cancel=cancel,
    )
    scan = any("values" in rule.needs for rule in rules)
    how = Hashing(Cache() if cache else None, rehash, scan, jobs) if hashes else None
    # The base's tensors are read only when a rule compares them.
    compare = any({"hashes", "base"} <= set(rule.needs) for rule in rules)
    evidence, lost = look(sweep, how, compare=compare, sink=sink, cancel=cancel)
    findings, skips = judge(evidence, rules)
    kept, ignored = set_aside(summary.sort_findings(findings), ignores)
    unread = summary.all_unread(evidence, sweep.unread + lost)
    unread += _unmet(
        sweep,
        evidence,
        tuple(require) or settings.require,
        settings.expect if expect is None else expect,
    )
    if sweep.base is None:
        skips += (Skip("CK6", ".", f"no base: {sweep.base_note}"),)
    return CheckReport(
        schema=CHECK_SCHEMA,
        tool=tool(),
        root=str(root),
        config=None if settings.path is None else relative_id(Path(settings.path), Path(root)),
        base=base_row(sweep),
        verdict=verdict(
            evidence,
            kept,
            [finding for finding, _ in ignored],
            unread,
            fail_on=threshold(fail_on or settings.fail_on),
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


def _require_known(
    select: Sequence[str],
    ignore: Sequence[str | Ignore],
    fail_on: str | None,
    require: Sequence[str],
    expect: int | None,
    jobs: int | None,
) -> None:
    """A gate with a typo in it must not pass: raise `UsageError` instead."""
    for name, value in (("select", select), ("ignore", ignore), ("require", require)):
        if isinstance(value, str):
            raise UsageError(f"{name} is a string", f"Give a list: {name}=[{value!r}].")
    if unknown := set(require) - {"base", "manifest"}:
        raise UsageError(f"require has {sorted(unknown)[0]!r}", "Known are base and manifest.")
    if fail_on not in (None, *FAIL_ON):
        raise UsageError(f"fail_on is {fail_on!r}", f"Known are {', '.join(FAIL_ON)}.")
    if (expect is not None and expect < 0) or (jobs is not None and jobs < 1):
        raise UsageError("expect and jobs are counts", "expect is 0 or more, jobs 1 or more.")


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


def _ignore(item: str | Ignore) -> Ignore:
    return item if isinstance(item, Ignore) else Ignore(item, "ignored on the command line")
