"""`sweep --baseline-from`: from a full-precision model to a sweep.

A search ranks the layers, an export of all ranked layers becomes the donor, and the schemes are
composed from both. The donor is a hidden directory that goes when all is done: the scheme of all
layers holds the same. What was finished when a run is stopped is used by the next one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ckptdiff.analysis.composing.partition import eligible_ranking, partition_of, share_of
from ckptdiff.analysis.coverage import is_full_precision
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.api.common import StrPath, tool
from ckptdiff.api.composing import execute, percents_of, plan_sweep, require_outside
from ckptdiff.api.exporting import calibration, require_engine
from ckptdiff.api.verifying import verifier
from ckptdiff.errors import Cancelled, CkptdiffError, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.formats.names import format_token, scheme_name
from ckptdiff.jobs.export_planning import ExportJob, host_dtype
from ckptdiff.jobs.exporting import carry_out
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.placing import How, told
from ckptdiff.jobs.planning import PROVENANCE, companions, free_bytes
from ckptdiff.jobs.reading import read_one
from ckptdiff.jobs.resuming import NOTE, finished, inputs_of, provenance_of
from ckptdiff.jobs.staging import reserved
from ckptdiff.records.checkpoint import BaselineManifest, CoverageManifest
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.export import ExportOptions, ExportOrder, Preset
from ckptdiff.records.plan import PLAN_SCHEMA, CarriedFile, Outcome, Plan, PlanReport
from ckptdiff.sources.cache import Cache, RunCache

DEFAULT_PRESET = "FP8_DEFAULT_CFG"
DEFAULT_BITS = 11.0
# Formats that no subset can be composed of.
_INDIVISIBLE = ("NVFP4_AWQ", "SVDQUANT")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True, slots=True)
class PlannedBaseline:
    """What would be done: `report` says it; the rest is what `execute_baseline` needs."""

    report: PlanReport
    job: ExportJob
    base: Path
    top: tuple[Decimal, ...]


def plan_baseline(
    model: StrPath,
    *,
    top: Sequence[float | str | Decimal],
    out: StrPath,
    bits: float | None = None,
    options: ExportOptions | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> PlannedBaseline:
    """The plan to rank the layers of `model` and to build a scheme for each percentage.

    Everything becomes a directory below `out`: the export of the search, which holds the ranking
    and spends `bits` a weight, and the schemes. What an earlier run of the same inputs and
    options left there is planned to be used. Raises `UsageError` or `RootError` for a request
    that cannot be carried out and `CapabilityError` when ModelOpt is not installed.
    """
    options = options or ExportOptions()
    percents = percents_of(top)
    require_engine("autoquant", options)
    bits = DEFAULT_BITS if bits is None else bits
    if not 0 < bits <= 16:
        raise UsageError(f"{bits:g} effective bits", "They lie above 0 and up to 16.")
    preset = options.preset or DEFAULT_PRESET
    if any(word in preset for word in _INDIVISIBLE):
        raise UsageError(
            f"no scheme can be composed of {preset}, whose scales reach into other layers",
            "Name another preset, or make each scheme by reexport --engine modelopt.",
        )
    base = _base(model)
    original = Path(base.checkpoint.path)
    job = _search_job(base, Path(out), preset, bits, options)
    require_outside(Path(job.plan.target), original, [original])
    later = tuple(_later(job.plan, percent, Path(out)) for percent in percents)
    if _is_begun(job, later, sink, cancel or CancelToken()):
        job = replace(job, plan=replace(job.plan, why=f"is there: {NOTE}", bytes=0))
    notes = (
        "what each scheme selects follows from the ranking; sizes are at most those of the model",
        "an export of all ranked layers is made between the two, and removed again",
    )
    report = PlanReport(PLAN_SCHEMA, tool(), (job.plan, *later), notes=notes)
    return PlannedBaseline(report, job, original, tuple(percents))


def execute_baseline(
    planned: PlannedBaseline,
    *,
    jobs: int | None = None,
    cache: bool = True,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> PlanReport:
    """Search, export the donor, compose. The report has an outcome for the export of the
    search and one a scheme; its notes say how long each step took. When a step fails, what
    the steps before wrote stays."""
    cancel = cancel or CancelToken()
    remembered = Cache() if cache else RunCache()
    verify = verifier(str(planned.base), remembered, jobs, sink, cancel)
    how = How(tool(), verify, Hashing(remembered, jobs=jobs), jobs, sink, cancel)
    try:
        return _carried_out(planned, how, cache)
    except OSError as error:  # of the directory itself: what goes into it has outcomes
        raise told(planned.job.plan, error) from error


def _carried_out(planned: PlannedBaseline, how: How, cache: bool) -> PlanReport:
    baseline = Path(planned.job.plan.target)
    baseline.parent.mkdir(parents=True, exist_ok=True)
    with reserved(baseline.with_name(f"{baseline.name}_sweep")):
        started = time.monotonic()
        found = _export(planned.job, how)
        report = replace(planned.report, outcomes=(found,))
        times = [f"search {time.monotonic() - started:.1f} s"]
        if found.status != "written":
            return report
        try:
            started = time.monotonic()
            job = _donor_job(planned, baseline)
            donor = _export(job, how)
            times.append(f"donor {time.monotonic() - started:.1f} s")
            if donor.status != "written":
                return replace(report, outcomes=(found, donor))
            started = time.monotonic()
            plans, outcomes = _composed(planned, found, donor, how, cache)
        except (Cancelled, KeyboardInterrupt) as error:
            raise _stopped(baseline) from error
        times.append(f"{len(outcomes)} schemes {time.monotonic() - started:.1f} s")
        if all(outcome.status == "written" for outcome in outcomes):
            _remove(Path(donor.target))
    return replace(
        report,
        plans=(planned.job.plan, *plans),
        outcomes=(found, *outcomes),
        notes=(*donor.notes, f"took: {', '.join(times)}"),
    )


def _is_ours(job: ExportJob, sink: Sink, cancel: CancelToken) -> bool:
    """Whether what lies at the target says that it was made of the job's inputs."""
    said = provenance_of(Path(job.plan.target)).get("inputs")
    if said is None or job.order is None:
        return False
    _, inputs = inputs_of(job.order, Hashing(scan=False), sink, cancel)
    return inputs is not None and inputs == said


def _export(job: ExportJob, how: How) -> Outcome:
    """An export as an earlier run left it, where that is of the same inputs and passes; else
    made now."""
    target = Path(job.plan.target)
    if os.path.lexists(target):
        assert job.order is not None
        _, inputs = inputs_of(job.order, how.hashing, how.sink, how.cancel)
        if inputs and (kept := finished(target, how, lambda made: made.get("inputs") == inputs)):
            return kept
        if target.name.startswith(".") and provenance_of(target):
            _remove(target)  # a donor of other inputs, which no run will use any more
    (outcome,) = carry_out([job], how)
    return outcome


def _composed(
    planned: PlannedBaseline, found: Outcome, donor: Outcome, how: How, cache: bool
) -> tuple[tuple[Plan, ...], tuple[Outcome, ...]]:
    """Plan and outcome of every scheme, those first that an earlier run had finished."""
    baseline = Path(found.target)
    ranking = tuple(eligible_ranking(_manifest(planned, baseline)))
    sources = {found.fingerprint, donor.fingerprint, _of_base(provenance_of(baseline))}
    kept: dict[Decimal, tuple[Plan, Outcome]] = {}
    for percent, plan in zip(planned.top, planned.report.plans[1:], strict=True):
        chosen = ranking[: share_of(ranking, percent)]
        outcome = finished(Path(plan.target), how, lambda made: _sources(made) <= sources)
        if outcome is not None and _selected(Path(plan.target)) == chosen:
            kept[percent] = plan, outcome
    rest = [percent for percent in planned.top if percent not in kept]
    plans = tuple(plan for plan, _ in kept.values())
    outcomes = tuple(outcome for _, outcome in kept.values())
    if not rest:
        return plans, outcomes
    sweep = plan_sweep(
        baseline,
        top=rest,
        out=baseline.parent,
        base=planned.base,
        donors=[donor.target],
        sink=how.sink,
        cancel=how.cancel,
    )
    done = execute(sweep, jobs=how.jobs, cache=cache, sink=how.sink, cancel=how.cancel)
    return (*plans, *done.plans), (*outcomes, *done.outcomes)


def _sources(made: Mapping[str, Any]) -> set[str | None]:
    """Fingerprints of all that a scheme was composed of."""
    return {_of_base(made), *(donor.get("fingerprint") for donor in made.get("donors", ()))}


def _of_base(made: Mapping[str, Any]) -> str | None:
    found = made.get("base", {}).get("fingerprint")
    return found if isinstance(found, str) else None


def _selected(scheme: Path) -> tuple[str, ...]:
    manifests = read_checkpoint(scheme, scheme.name).coverage
    return tuple(manifests[0].selected) if len(manifests) == 1 else ()


def _donor_place(baseline: Path) -> Path:
    return baseline.with_name(f".{baseline.name}_donor")


def _remove(donor: Path) -> None:
    with reserved(donor) as place:
        place.remove()


def _stopped(baseline: Path) -> Cancelled:
    error = Cancelled(f"stopped; {baseline} was written")
    error.next_step = "Run the same command again: it goes on from what is finished."
    return error


def _base(model: StrPath) -> SchemeEvidence:
    read_one(Path(model))
    checkpoint = read_checkpoint(Path(model), str(model))
    if not is_full_precision(checkpoint):
        raise UsageError(
            f"{model} is no full-precision checkpoint",
            "A search starts from the model as it was before any quantization.",
        )
    return scheme_evidence(checkpoint, None)


def _search_job(
    base: SchemeEvidence, out: Path, preset: str, bits: float, options: ExportOptions
) -> ExportJob:
    """The export of the search, into a directory of its own below `out`."""
    rows = calibration(options)
    family, name = _names(preset, options)
    target = out / name
    copies = dict(companions(base))
    order = ExportOrder(
        work="search",
        scheme=family,
        base=base.checkpoint.path,
        target="",
        presets=(Preset(preset, None),),
        dtype=host_dtype(base, base),
        calibration=rows,
        bits=bits,
        score=options.score,
        trust_remote_code=options.trust_remote_code,
    )
    plan = Plan(
        scheme=name,
        target=str(target),
        original=None,
        in_place=False,
        engine="autoquant",
        why=f"ranks the layers by {options.score} scores over {len(rows.rows)} rows of "
        f"{rows.source} and spends {bits:g} bits a weight",
        algorithm=preset,
        base=base.checkpoint.path,
        carried=tuple(CarriedFile(file, source) for file, (_, source) in copies.items()),
        provenance=PROVENANCE,
        bytes=sum(tensor.nbytes for _, tensor, _ in base.tensors.values()),
        free=free_bytes(target),
    )
    return ExportJob(plan, order, {file: str(path) for file, (path, _) in copies.items()})


def _is_begun(job: ExportJob, later: Sequence[Plan], sink: Sink, cancel: CancelToken) -> bool:
    """Whether an earlier run of the same inputs has begun and not ended. Raises `UsageError`
    when anything else is where something is to be written."""
    target = Path(job.plan.target)
    there = [each.target for each in (job.plan, *later) if os.path.lexists(each.target)]
    if not there:
        return False
    ours = str(target) in there and _is_ours(job, sink, cancel)
    if not ours or (len(there) > len(later) and not os.path.lexists(_donor_place(target))):
        raise UsageError(
            f"{there[0]} is there already" + ("" if ours else ", made from other inputs"),
            "Remove it, name another --out, or go on from a ranking that is there: "
            "`ckptdiff sweep BASELINE --donor DIR`.",
        )
    return True


def _names(preset: str, options: ExportOptions) -> tuple[str, str]:
    """(the name of the family, the directory of the search)."""
    words = preset.removesuffix("_CFG").removesuffix("_DEFAULT").lower()
    family = f"{words}_autoquant_all_layers_{format_token(words) or words}"
    stem = Path(options.calib).stem if options.calib else ""
    plain = _PLAIN.fullmatch(stem) and format_token(stem) is None
    return family, f"{family}_{stem}" if plain else family


def _later(search: Plan, percent: Decimal, out: Path) -> Plan:
    """A scheme that will be composed once the ranking is known."""
    name = scheme_name(search.scheme, f"{percent.normalize():f}")
    return replace(
        search,
        scheme=name,
        target=str(out / name),
        engine="compose",
        why=f"the {percent.normalize():f} % of the ranking that are least sensitive, from the "
        "export of all ranked layers and from the model",
    )


def _manifest(planned: PlannedBaseline, baseline: Path) -> BaselineManifest:
    """What the search found out. Raises `CkptdiffError` when it ranked nothing."""
    manifest = scheme_evidence(read_checkpoint(baseline, baseline.name), None).baseline
    if manifest is None or not eligible_ranking(manifest):
        raise CkptdiffError(
            f"the search ranked no layer of {planned.base}", "Name another preset by --preset."
        )
    return manifest


def _donor_job(planned: PlannedBaseline, baseline: Path) -> ExportJob:
    """An export of all layers that the search ranked, on the same data."""
    order = planned.job.order
    assert order is not None
    manifest = _manifest(planned, baseline)
    ranking = eligible_ranking(manifest)
    every = CoverageManifest(
        "", None, None, None, None, None, None, None, None, selected=ranking, dropped=()
    )
    partition = partition_of(every, manifest, _base(planned.base).coverage.modules)
    keys = tuple(sorted(partition.selected | partition.unpackable))
    preset = Preset(order.presets[0].name, keys)
    target = _donor_place(baseline)
    plan = replace(
        planned.job.plan, scheme=target.name, target=str(target), engine="modelopt", carried=()
    )
    return ExportJob(plan, replace(order, work="quantize", presets=(preset,), bits=None))
