"""`sweep` and `reexport`: plans for schemes put together from what is there, and their execution.

A plan is made from headers in moments and shown before anything is written; `execute` carries
it out.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from ckptdiff.analysis.composing.partition import eligible_ranking, share_of
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.experts import viewed
from ckptdiff.api.common import StrPath, tool
from ckptdiff.api.exporting import by_engine, calibration, require_engine
from ckptdiff.api.verifying import verifier
from ckptdiff.errors import RootError, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.formats.manifests import COVERAGE_SUFFIX, MANIFEST_DIR, parse_coverage
from ckptdiff.formats.names import scheme_name
from ckptdiff.jobs import exporting
from ckptdiff.jobs.composing import carry_out
from ckptdiff.jobs.export_planning import ExportJob
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.placing import How
from ckptdiff.jobs.planning import Job, Wish, broken, plan_scheme, unusable
from ckptdiff.jobs.reading import read_one, read_sweep
from ckptdiff.jobs.staging import finish_interrupted
from ckptdiff.records.checkpoint import BaselineManifest
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.export import ExportOptions
from ckptdiff.records.plan import PLAN_SCHEMA, Engine, PlanReport
from ckptdiff.sources.cache import Cache, RunCache
from ckptdiff.sources.local import Unreadable, read_document


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be done: `report` says it, `jobs` are what `execute` carries out."""

    report: PlanReport
    jobs: tuple[Job | ExportJob, ...]


def plan_reexport(
    schemes: Sequence[StrPath],
    *,
    engine: Engine = "auto",
    base: StrPath | None = None,
    donors: Sequence[StrPath] = (),
    out: StrPath | None = None,
    in_place: bool = False,
    options: ExportOptions | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> Planned:
    """The plans to write each of `schemes` anew, as its coverage manifest says.

    Each becomes `<scheme>_v2` beside the original, a directory of its own name below `out`, or
    with `in_place` the scheme itself, whose old directory is set aside. `base` is searched for
    around the schemes unless given; `donors` are the schemes of the same family beside it
    unless given. `options` are for ModelOpt's engines. Raises `UsageError`, `RootError` or
    `BaseError` for a request that cannot be carried out and `CapabilityError` for an engine that
    is not installed; what keeps one scheme from being written is in its plan.
    """
    options = options or ExportOptions()
    require_engine(engine, options)
    if not schemes:
        raise UsageError("no scheme was named", "Name at least one directory.")
    if out is not None and in_place:
        raise UsageError("out and in_place exclude each other", "Choose one of them.")
    cancel = cancel or CancelToken()
    paths = [_real(path) for path in schemes]
    replaced = [path.resolve() for path in paths] if in_place else []
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a scheme is named twice", "Name each once.")
    given = [_evidence(Path(path)) for path in donors]
    rows = calibration(options)
    jobs: list[Job | ExportJob] = []
    around: dict[Path, _Around] = {}
    for path in paths:
        if path.parent not in around:
            around[path.parent] = _Around.of(path.parent, base, given, sink, cancel)
        there = around[path.parent]
        original = there.find(path)
        if original is None:
            raise RootError(
                f"{path} is no checkpoint of a sweep",
                "Name the directory of one scheme; its base is never written.",
            )
        target = _target(path, out, in_place=in_place)
        if out is not None:
            sources = [path, *(Path(donor.checkpoint.path) for donor in given)]
            require_outside(target, path, [*sources, *there.base_paths])
        wish = Wish(
            name=target.name,
            target=target,
            manifest=next(iter(original.checkpoint.coverage), None),
            baseline=original.baseline,
            fallback=original,
            original=original,
            in_place=in_place,
        )
        chosen = given or list(there.family(original, replaced))
        composed = _planned(wish, chosen, there, strict=bool(given), replaced=replaced)
        jobs.append(by_engine(engine, composed, wish, there.base, there.note, options, rows))
    return _report(jobs)


def plan_sweep(
    baseline: StrPath,
    *,
    top: Sequence[float | str | Decimal],
    out: StrPath,
    base: StrPath | None = None,
    donors: Sequence[StrPath] = (),
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> Planned:
    """The plans for one scheme a percentage of `top`, along the ranking of `baseline`.

    Each selects the least sensitive recipes, at least one, and is named after the baseline
    with `topNN` for its format. `donors` come before the baseline itself. Raises as
    `plan_reexport` does.
    """
    cancel = cancel or CancelToken()
    percents = percents_of(top)
    path = _real(baseline)
    given = [_evidence(Path(donor)) for donor in donors]
    there = _Around.of(path if base is not None else path.parent, base, given, sink, cancel)
    source = there.find(path)
    manifest = source.baseline if source is not None else None
    if source is None or manifest is None:
        raise UsageError(
            f"{baseline} holds no baseline manifest",
            f"Name the export of an AutoQuant search: it has {MANIFEST_DIR}/*_quant_manifest.json.",
        )
    if source.id == ".":  # it was looked at alone
        source = replace(source, checkpoint=replace(source.checkpoint, id=path.name))
    ranking = eligible_ranking(manifest)
    if not ranking:
        raise UsageError(
            f"the baseline manifest of {baseline} ranks no layer",
            "It needs sensitivity_ranking, or ranks in layer_sensitivity.",
        )
    chosen = [*given, source]
    require_outside(
        Path(out) / path.name,
        path,
        [*(Path(donor.checkpoint.path) for donor in chosen), *there.base_paths],
    )
    jobs = []
    for percent in percents:
        name = scheme_name(path.name, f"{percent.normalize():f}")
        _require_free(Path(out) / name)
        documents = _manifests(path, source, manifest, ranking, percent, name)
        coverage = f"{MANIFEST_DIR}/{name}{COVERAGE_SUFFIX}"
        wish = Wish(
            name=name,
            target=Path(out) / name,
            manifest=parse_coverage(json.loads(documents[coverage]), coverage),
            baseline=manifest,
            fallback=source,
            documents=documents,
        )
        jobs.append(_planned(wish, chosen, there, strict=bool(donors), replaced=[]))
    return _report(jobs)


def execute(
    planned: Planned,
    *,
    jobs: int | None = None,
    cache: bool = True,
    log: StrPath | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> PlanReport:
    """Carry plans out: prove, write beside the target, check, rename. The report has an
    outcome a plan. `log` takes what a child prints, each anew.

    Raises `UsageError` before anything is written when a plan is impossible or a donor is not
    what base gives, and `Cancelled`; sources and originals are as they were then.
    """
    cancel = cancel or CancelToken()
    if not planned.report.possible:
        raise UsageError("not every plan can be carried out", "The plans say what is missing.")
    base = next((job.plan.base for job in planned.jobs), None)
    remembered = Cache() if cache else RunCache()
    verify = verifier(base, remembered, jobs, sink, cancel)
    hashing = Hashing(remembered, jobs=jobs)
    how = How(tool(), verify, hashing, jobs, sink, cancel, None if log is None else Path(log))
    composed = [job for job in planned.jobs if isinstance(job, Job)]
    exports = [job for job in planned.jobs if isinstance(job, ExportJob)]
    outcomes = [*(carry_out(composed, how) if composed else ())]
    outcomes += exporting.carry_out(exports, how) if exports else ()
    found = {outcome.target: outcome for outcome in outcomes}
    ordered = tuple(found[job.plan.target] for job in planned.jobs)
    return replace(planned.report, outcomes=ordered)


@dataclass(frozen=True, slots=True)
class _Around:
    """The schemes that lie around one, and their base (`note` says why there is none), with its
    experts one by one where a scheme or a donor has them so."""

    schemes: tuple[SchemeEvidence, ...]
    base: SchemeEvidence | None
    note: str

    @classmethod
    def of(
        cls,
        root: Path,
        base: StrPath | None,
        donors: Sequence[SchemeEvidence],
        sink: Sink,
        cancel: CancelToken,
    ) -> _Around:
        sweep = read_sweep(
            root, base=None if base is None else Path(base), sink=sink, cancel=cancel
        )
        schemes = tuple(scheme_evidence(checkpoint, None) for checkpoint in sweep.schemes)
        found = None
        if sweep.base:
            found = scheme_evidence(viewed(sweep.base.checkpoint, [*schemes, *donors]), None)
        return cls(schemes, found, sweep.base_note)

    @property
    def base_paths(self) -> list[Path]:
        return [] if self.base is None else [Path(self.base.checkpoint.path)]

    def find(self, path: Path) -> SchemeEvidence | None:
        wanted = path.resolve()
        return next((s for s in self.schemes if Path(s.checkpoint.path).resolve() == wanted), None)

    def family(
        self, original: SchemeEvidence, replaced: Sequence[Path]
    ) -> Iterator[SchemeEvidence]:
        """The schemes that may donate to `original`, itself last."""
        for scheme in self.schemes:
            other = scheme.checkpoint.path != original.checkpoint.path
            kept = Path(scheme.checkpoint.path).resolve() not in replaced
            if other and kept and scheme.family == original.family:
                yield scheme
        yield original


def _planned(
    wish: Wish,
    donors: Sequence[SchemeEvidence],
    there: _Around,
    *,
    strict: bool,
    replaced: Sequence[Path],
) -> Job:
    """The plan of one wish. `strict`: a donor that cannot be used is an error, not passed over."""
    usable = []
    for donor in donors:
        why = None
        if broken(donor.checkpoint):  # before anything is said of what it holds
            why = "has headers that cannot be read or contradict themselves"
        elif there.base is not None:
            why = unusable(donor, there.base, wish.fallback.algorithm)
        path = Path(donor.checkpoint.path).resolve()
        if why is None and strict and path in replaced and donor is not wish.original:
            why = "is itself replaced by this command"
        if why is None:
            usable.append(donor)
        elif strict and donor is not wish.fallback:
            raise UsageError(f"the donor {donor.id} {why}", "Name another donor by --donor.")
    return plan_scheme(wish, usable, there.base, there.note)


def _manifests(
    baseline: Path,
    source: SchemeEvidence,
    manifest: BaselineManifest,
    ranking: Sequence[str],
    percent: Decimal,
    name: str,
) -> dict[str, bytes]:
    """The coverage manifest of a new scheme and its baseline's manifest, by their paths."""
    count = share_of(ranking, percent)
    folder = baseline.as_posix()
    number = int(percent) if percent == int(percent) else float(percent)
    coverage = {
        "baseline_dir": folder,
        "baseline_manifest": f"{folder}/{manifest.name}",
        "scheme_name": name,
        "top_percent": number,
        "coverage_fraction": float(percent / 100),
        "num_layers_total": len(ranking),
        "num_layers_selected": count,
        "num_layers_dropped": len(ranking) - count,
        "selected_layers": list(ranking[:count]),
        "dropped_layers": list(ranking[count:]),
    }
    try:
        original = read_document(Path(source.checkpoint.path) / manifest.name)
    except Unreadable as error:
        raise UsageError(
            f"{manifest.name} cannot be read: {error.reason}", "Check the baseline."
        ) from error
    own = f"{MANIFEST_DIR}/{name}{COVERAGE_SUFFIX}"
    theirs = f"{MANIFEST_DIR}/{Path(manifest.name).name}"
    return {own: json.dumps(coverage, indent=2).encode("ascii"), theirs: original}


def _report(jobs: Sequence[Job | ExportJob]) -> Planned:
    targets = [job.plan.target for job in jobs]
    if len(set(targets)) < len(targets):
        raise UsageError("two schemes would have the same target", "Name them in two commands.")
    report = PlanReport(PLAN_SCHEMA, tool(), tuple(job.plan for job in jobs))
    return Planned(report, tuple(jobs))


def _target(path: Path, out: StrPath | None, *, in_place: bool) -> Path:
    if in_place:
        return path
    target = path.with_name(f"{path.name}_v2")
    if out is not None:
        target = Path(out) / path.name
    _require_free(target)
    return target


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        quoted = shlex.quote(str(target))
        raise UsageError(f"{target} is there already", f"Remove {quoted}, or name another --out.")
    if os.path.lexists(target.parent) and not target.parent.is_dir():
        raise UsageError(f"{target.parent} is no directory", "Name another --out.")


def require_outside(target: Path, path: Path, sources: Sequence[Path]) -> None:
    """Nothing is written into a source, unless `path` lies in it too: a base may have its
    schemes in its own directory."""
    for source in (source.resolve() for source in sources):
        if source in target.resolve().parents and source not in path.resolve().parents:
            raise UsageError(
                f"{target} would be inside {source}, which it is made from", "Name another --out."
            )


def percents_of(top: Sequence[float | str | Decimal]) -> list[Decimal]:
    """The percentages that were asked for. Raises `UsageError` for anything else."""
    try:
        percents = [Decimal(str(value)) for value in top]
    except ArithmeticError as error:
        raise UsageError("top is a list of percentages", "As in --top 10,20,50,100.") from error
    if not percents or any(not p.is_finite() or not 0 < p <= 100 for p in percents):
        raise UsageError("percentages lie above 0 and up to 100", "As in --top 10,20,50,100.")
    if len(set(percents)) < len(percents):
        raise UsageError("a percentage is given twice", "Name each once.")
    return percents


def _real(path: StrPath) -> Path:
    """A directory under a name that can be added to: the path as given, else where it leads,
    so that a link to a scheme is not replaced by a directory."""
    given = Path(path)
    try:
        finish_interrupted(given)
        real = given.resolve(strict=True)
        return real if given.is_symlink() or given.name in ("", "..") else given
    except FileNotFoundError as error:
        raise RootError(f"{path} does not exist", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise RootError(f"{path} cannot be found: {error}", "Check the path.") from error


def _evidence(path: Path) -> SchemeEvidence:
    read_one(path)  # says what is wrong with a path that is no checkpoint
    return scheme_evidence(read_checkpoint(path, str(path)), None)
