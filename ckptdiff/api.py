"""The verbs: all that a front end, a script or a test may call.

Every command of the CLI is one function here with the same options; what it prints is the
report that the function returns. Rules, jobs and reports meet here and nowhere else.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ckptdiff import __version__
from ckptdiff.analysis import summary
from ckptdiff.analysis.evidence import gather, scheme_evidence
from ckptdiff.analysis.fingerprint import fingerprint
from ckptdiff.analysis.verdict import at_least, verdict
from ckptdiff.errors import SettingsError, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.discovery import holds_checkpoint
from ckptdiff.formats.names import keys_of
from ckptdiff.formats.settings import find_settings, read_settings
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.reading import read_one, read_sweep, relative_id
from ckptdiff.records.checkpoint import HIDING, Unread
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
from ckptdiff.records.settings import FAIL_ON, FailOn, Settings
from ckptdiff.records.sweep import Sweep
from ckptdiff.rules.engine import judge, set_aside
from ckptdiff.rules.registry import RULES, matching, table
from ckptdiff.sources.cache import Cache
from ckptdiff.sources.local import Unreadable, read_document

Requirement = Literal["base", "manifest"]
Format = Literal["text", "json", "markdown"]
StrPath = str | os.PathLike[str]

if TYPE_CHECKING:
    # Only for signatures: most runs need one of them, and making classes takes time.
    from ckptdiff.records.doctor import DoctorReport
    from ckptdiff.records.hashes import HashReport, VerifyReport
    from ckptdiff.records.layers import LayersReport

    Report = CheckReport | ScanReport | LayersReport | HashReport | VerifyReport | DoctorReport


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
        tool=_tool(),
        root=str(root),
        config=None if settings.path is None else relative_id(Path(settings.path), Path(root)),
        base=_base_row(sweep),
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
    sweep = _read(root, base, sink, cancel)
    evidence = gather(sweep, None)
    return ScanReport(
        schema=SCAN_SCHEMA,
        tool=_tool(),
        root=str(root),
        base=_base_row(sweep),
        schemes=summary.scheme_rows(evidence, ()),
        unread=summary.all_unread(evidence, sweep.unread),
        passed_over=sweep.passed_over,
    )


def layers(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    pattern: str | None = None,
    mismatches: bool = False,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> LayersReport:
    """Modules x schemes: the dtype of each module in each scheme, against its manifest.

    `pattern` (shell style) picks modules, `mismatches` those with a cell that its manifest
    contradicts. Raises as `check` does.
    """
    from ckptdiff.analysis.layers import layer_rows
    from ckptdiff.records.layers import LAYERS_SCHEMA, LayersReport

    sweep = _read(root, base, sink, cancel)
    evidence = gather(sweep, None)
    rows = layer_rows(evidence.schemes, pattern=pattern, mismatches=mismatches)
    return LayersReport(
        schema=LAYERS_SCHEMA,
        tool=_tool(),
        root=str(root),
        schemes=tuple(scheme.id for scheme in evidence.schemes),
        modules=rows,
        mismatches=sum(cell.agrees is False for row in rows for cell in row.cells),
        unread=summary.all_unread(evidence, sweep.unread),
    )


def hash(
    path: StrPath,
    *,
    sha256: bool = False,
    cache: bool = True,
    rehash: bool = False,
    jobs: int | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> HashReport:
    """The fingerprint of one checkpoint, and the digests it is made of.

    `sha256` adds the SHA-256 of each shard file. Raises `RootError` when `path` holds no
    safetensors and `Cancelled` when `cancel` is set.
    """
    from ckptdiff.jobs.locking import sha256_files
    from ckptdiff.records.hashes import HASH_SCHEMA, HashReport, TensorRow

    cancel = cancel or CancelToken()
    checkpoint = read_one(Path(path))
    how = Hashing(Cache() if cache else None, rehash, scan=False, jobs=jobs)
    found = scheme_evidence(
        checkpoint, digest_shards(checkpoint.shards, how, sink=sink, cancel=cancel)
    )
    keys = keys_of(name for name, _, _ in checkpoint.items())
    files, lost = sha256_files(checkpoint.shards, sink=sink, cancel=cancel) if sha256 else ((), ())
    broken = tuple(
        Unread(defect.file, defect.message)
        for defect in checkpoint.defects + tuple(d for s in checkpoint.shards for d in s.defects)
        if defect.kind in HIDING
    )
    return HashReport(
        schema=HASH_SCHEMA,
        tool=_tool(),
        path=str(path),
        fingerprint=found.fingerprint,
        tensors=tuple(
            TensorRow(name, keys[name], tensor.dtype, tensor.shape, _hex(found.digests.get(name)))
            for name, tensor, _ in checkpoint.items()
        ),
        files=files,
        unread=tuple(dict.fromkeys(found.unread + lost + broken)),
    )


def lock(report: HashReport) -> bytes:
    """The lock file for a report of `hash`.

    Raises `UsageError` when not every tensor was read: half a lock would lock nothing.
    """
    from ckptdiff.formats.lock import write_lock

    if report.fingerprint is None or report.unread:
        raise UsageError(
            f"not all of {report.path} could be read, so it cannot be locked",
            f"`ckptdiff check {shlex.quote(report.path)}` says what is wrong.",
        )
    return write_lock(report).encode("utf-8", "surrogatepass")


def verify(path: StrPath, lock_file: StrPath, **options: Any) -> VerifyReport:
    """The checkpoint at `path` against a lock file. `options` are those of `hash`.

    Raises `UsageError` when the lock cannot be read or understood, and as `hash` does.
    """
    from ckptdiff.formats.lock import parse_lock
    from ckptdiff.jobs.locking import compare_with_lock
    from ckptdiff.records.hashes import VERIFY_SCHEMA, VerifyReport

    try:
        text = read_document(Path(lock_file)).decode("utf-8", "surrogatepass")
    except (Unreadable, UnicodeDecodeError) as error:
        raise UsageError(f"{lock_file} cannot be read: {error}", "Check the path.") from error
    locked = parse_lock(text, str(lock_file))
    keys = keys_of(locked.tensors)
    leaves = [
        (keys[name], dtype, shape, bytes.fromhex(digest))
        for name, (dtype, shape, digest) in locked.tensors.items()
    ]
    if fingerprint(leaves) != locked.fingerprint:
        raise UsageError(
            f"{lock_file} contradicts itself: its tensors do not add up to its fingerprint",
            "Somebody edited it; write it again from a checkpoint that you trust.",
        )
    report = hash(path, **options)
    differences = compare_with_lock(locked, report.tensors) if not report.unread else ()
    if report.unread:
        # What could not be read is not missing; what was read and differs is different.
        differences = tuple(
            d for d in compare_with_lock(locked, report.tensors) if d.what == "changed"
        )
    return VerifyReport(
        schema=VERIFY_SCHEMA,
        tool=_tool(),
        path=str(path),
        lock=str(lock_file),
        same=report.fingerprint == locked.fingerprint and not (report.unread or differences),
        expected=locked.fingerprint,
        fingerprint=report.fingerprint,
        differences=differences,
        unread=report.unread,
    )


def refuse_inside(path: StrPath) -> None:
    """Raise `UsageError` when `path` lies in a checkpoint: those are never written to."""
    target = Path(path).resolve()
    for above in target.parents:
        if holds_checkpoint(above):
            raise UsageError(
                f"{path} lies inside the checkpoint {above}, which is never written to",
                "Name a file outside of it.",
            )


def doctor() -> DoctorReport:
    """What this installation can do. Asks a child process for GPUs, which takes seconds."""
    from ckptdiff.jobs import doctor as found
    from ckptdiff.records.doctor import DOCTOR_SCHEMA, DoctorReport

    return DoctorReport(
        schema=DOCTOR_SCHEMA,
        tool=_tool(),
        python=found.python(),
        processors=found.processors(),
        devices=found.devices(),
        cache=str(Cache().path),
        cache_bytes=found.cache_size(),
        capabilities=found.capabilities(),
    )


def render(
    report: Report | tuple[RuleInfo, ...],
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
    if format == "markdown" and isinstance(report, CheckReport):
        from ckptdiff.report.markdown import check_markdown

        return check_markdown(report).encode("utf-8", "backslashreplace")
    if format == "text":
        from ckptdiff.report.text import report_text

        return report_text(report, color=color).encode("utf-8", "backslashreplace")
    raise UsageError(
        f"this report has no format {format!r}", "Formats are text and json; check has markdown."
    )


def exit_code(report: Report, fail_on: FailOn = "error") -> int:
    """1 for a finding at or above `fail_on` or a lock that does not hold, else 2 for anything
    unread, else 0."""
    findings = report.findings if isinstance(report, CheckReport) else ()
    if fail_on != "never" and any(at_least(f.severity, fail_on) for f in findings):
        return 1
    unread = bool(getattr(report, "unread", ()))
    if getattr(report, "differences", ()) or not (getattr(report, "same", True) or unread):
        return 1
    return 2 if unread else 0


def threshold(fail_on: str | None) -> Severity:
    """The severity from which on a verdict is "fail"; "never" leaves the verdict honest."""
    return "warning" if fail_on == "warning" else "error"


def rule_table(code: str | None = None) -> tuple[RuleInfo, ...]:
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


def _read(root: StrPath, base: StrPath | None, sink: Sink, cancel: CancelToken | None) -> Sweep:
    chosen = None if base is None else Path(base)
    return read_sweep(Path(root), base=chosen, sink=sink, cancel=cancel or CancelToken())


def _tool() -> Tool:
    return Tool("ckptdiff", __version__)


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def _base_row(sweep: Sweep) -> BaseRow | None:
    return None if sweep.base is None else BaseRow(sweep.base.checkpoint.id, sweep.base.found_by)


def _ignore(item: str | Ignore) -> Ignore:
    return item if isinstance(item, Ignore) else Ignore(item, "ignored on the command line")
