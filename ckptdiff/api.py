"""The verbs: all that a front end, a script or a test may call.

Every command of the CLI is one function here with the same options; what it prints is the
report that the function returns. Rules, jobs and reports meet here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ckptdiff import __version__
from ckptdiff.analysis import summary
from ckptdiff.analysis.evidence import casts_wanted, gather, with_base
from ckptdiff.analysis.verdict import at_least, verdict
from ckptdiff.errors import SettingsError, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.settings import find_settings, read_settings
from ckptdiff.jobs.hashing import Hashing, digest_casts, digest_shards
from ckptdiff.jobs.reading import read_sweep, relative_id
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Ignore, RuleInfo, Severity, Skip
from ckptdiff.records.report import (
    CHECK_SCHEMA,
    SCAN_SCHEMA,
    BaseRow,
    CheckReport,
    IgnoredFinding,
    ScanReport,
    Tool,
)
from ckptdiff.records.settings import FailOn, Settings
from ckptdiff.records.sweep import Sweep
from ckptdiff.rules.base import Rule
from ckptdiff.rules.engine import judge, set_aside
from ckptdiff.rules.registry import matching, table
from ckptdiff.sources.cache import Cache

Requirement = Literal["base", "manifest"]
Format = Literal["text", "json"]
StrPath = str | os.PathLike[str]


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
    how = Hashing(Cache() if cache else None, rehash, jobs) if hashes else None
    evidence, lost = _look(sweep, rules, how, sink, cancel)
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
        tool=Tool("ckptdiff", __version__),
        root=str(root),
        config=None if settings.path is None else relative_id(Path(settings.path), Path(root)),
        base=_base_row(sweep),
        verdict=verdict(evidence, kept, unread, threshold(fail_on or settings.fail_on)),
        schemes=summary.scheme_rows(evidence, kept),
        identity=summary.identity_rows(evidence),
        findings=kept,
        skipped=skips,
        ignored=tuple(IgnoredFinding.of(finding, reason) for finding, reason in ignored),
        unread=unread,
        passed_over=sweep.passed_over,
        counts=summary.counts(len(evidence.schemes), kept, len(ignored), len(skips), len(unread)),
    )


def scan(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> ScanReport:
    """The inventory of `root` from headers alone: sizes, dtypes, algorithm, coverage.

    Raises as `check` does.
    """
    sweep = read_sweep(
        Path(root),
        base=None if base is None else Path(base),
        sink=sink,
        cancel=cancel or CancelToken(),
    )
    evidence = gather(sweep, None)
    return ScanReport(
        schema=SCAN_SCHEMA,
        tool=Tool("ckptdiff", __version__),
        root=str(root),
        base=_base_row(sweep),
        schemes=summary.scheme_rows(evidence, ()),
        unread=summary.all_unread(evidence, sweep.unread),
        passed_over=sweep.passed_over,
    )


def render(
    report: CheckReport | ScanReport | tuple[RuleInfo, ...],
    format: Format = "text",
    *,
    color: bool = False,
) -> bytes:
    """A report as it is printed or written to a file; text is UTF-8.

    `color` adds terminal colours to text. Raises `UsageError` for a format that the report
    does not have.
    """
    if format == "json":
        from ckptdiff.report.json import to_json

        return to_json(report)
    if format == "text":
        from ckptdiff.report.text import report_text

        return report_text(report, color=color).encode("utf-8", "backslashreplace")
    raise UsageError(f"there is no format {format!r}", "Formats are text and json.")


def exit_code(report: CheckReport | ScanReport, fail_on: FailOn = "error") -> int:
    """1 for a finding at or above `fail_on`, else 2 for anything unread, else 0."""
    findings = report.findings if isinstance(report, CheckReport) else ()
    if fail_on != "never" and any(at_least(f.severity, fail_on) for f in findings):
        return 1
    return 2 if report.unread else 0


def threshold(fail_on: str | None) -> Severity:
    """The severity from which on a verdict is "fail"; "never" leaves the verdict honest."""
    return "warning" if fail_on == "warning" else "error"


def rules(code: str | None = None) -> tuple[RuleInfo, ...]:
    """The rule table, planned rules included; the rows that match `code` when it is given.

    Raises `UsageError` when nothing matches.
    """
    if code is None:
        return table()
    planned = tuple(info for info in table() if info.code == code.upper())
    return planned or tuple(rule.info() for rule in matching((code,)))


def load_settings(root: StrPath, config: StrPath | None = None) -> Settings:
    """The settings that apply to `root`: `config`, or ckptdiff.toml from here upwards.

    Raises `SettingsError` for a file that cannot be read or understood.
    """
    if config is not None:
        return read_settings(Path(config))
    try:
        path = find_settings(Path.cwd(), Path(root))
    except OSError as error:
        raise SettingsError(
            f"the working directory cannot be found: {error.strerror}",
            "Change to a directory that exists.",
        ) from error
    return Settings() if path is None else read_settings(path)


def _look(
    sweep: Sweep,
    rules: Sequence[type[Rule]],
    how: Hashing | None,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Evidence, tuple[Unread, ...]]:
    """Everything that the rules need to know, and what could not be read for it."""
    if how is None:
        return with_base(gather(sweep, None), {}), ()
    compare = any({"hashes", "base"} <= set(rule.needs) for rule in rules)
    checkpoints = list(sweep.schemes)
    if compare and sweep.base is not None:
        checkpoints.append(sweep.base.checkpoint)
    shards = [shard for checkpoint in checkpoints for shard in checkpoint.shards]
    evidence = gather(sweep, digest_shards(shards, how, sink=sink, cancel=cancel))
    if not compare or evidence.base is None:
        return with_base(evidence, {}), ()
    base = evidence.base
    wanted = casts_wanted(evidence)
    casts = digest_casts(base.checkpoint, base.digests, wanted, how, sink=sink, cancel=cancel)
    return with_base(evidence, casts.digests), tuple(casts.unread)


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


def _base_row(sweep: Sweep) -> BaseRow | None:
    return None if sweep.base is None else BaseRow(sweep.base.checkpoint.id, sweep.base.found_by)


def _ignore(item: str | Ignore) -> Ignore:
    return item if isinstance(item, Ignore) else Ignore(item, "ignored on the command line")
