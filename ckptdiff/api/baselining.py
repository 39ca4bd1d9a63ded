"""`sweep --baseline-from`: from a full-precision model to a sweep.

A search ranks the layers, an export of all ranked layers becomes the donor, and the schemes are
composed from both. The donor is a temporary directory: the scheme of all layers holds the same.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from ckptdiff.analysis.composing.partition import eligible_ranking, partition_of
from ckptdiff.analysis.coverage import is_full_precision
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.api.common import StrPath, tool
from ckptdiff.api.composing import execute, percents_of, plan_sweep, verifier
from ckptdiff.api.exporting import calibration, require_engine
from ckptdiff.errors import CkptdiffError, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.formats.names import format_token, scheme_name
from ckptdiff.jobs.export_planning import ExportJob, host_dtype
from ckptdiff.jobs.exporting import carry_out, export_into
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.placing import How
from ckptdiff.jobs.planning import PROVENANCE, companions, free_bytes
from ckptdiff.jobs.reading import read_one
from ckptdiff.jobs.staging import reserved
from ckptdiff.records.checkpoint import CoverageManifest
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.export import ExportOptions, ExportOrder, Preset
from ckptdiff.records.plan import PLAN_SCHEMA, CarriedFile, Plan, PlanReport

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
) -> PlannedBaseline:
    """The plan to rank the layers of `model` and to build a scheme for each percentage.

    Everything becomes a directory below `out`: the export of the search, which holds the ranking
    and spends `bits` a weight, and the schemes. Raises `UsageError` or `RootError` for a request
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
    rows = calibration(options)
    family, name = _names(preset, options)
    target = Path(out) / name
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
    size = sum(tensor.nbytes for _, tensor, _ in base.tensors.values())
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
        bytes=size,
        free=free_bytes(target),
    )
    later = [_later(name, percent, Path(out), plan) for percent in percents]
    for each in (plan, *later):
        if os.path.lexists(each.target):
            raise UsageError(
                f"{each.target} is there already",
                "Remove it, name another --out, or go on from a ranking that is there: "
                "`ckptdiff sweep BASELINE --donor DIR`.",
            )
    notes = (
        "what each scheme selects follows from the ranking; sizes are at most those of the model",
        "an export of all ranked layers is made between the two, and removed again",
    )
    report = PlanReport(PLAN_SCHEMA, tool(), (plan, *later), notes=notes)
    job = ExportJob(plan, order, {file: str(path) for file, (path, _) in copies.items()})
    return PlannedBaseline(report, job, Path(base.checkpoint.path), tuple(percents))


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
    verify = verifier(str(planned.base), jobs, sink, cancel)
    hashing = Hashing(None, rehash=False, scan=False, jobs=jobs)
    how = How(tool(), verify, hashing, jobs, sink, cancel)
    started = time.monotonic()
    (found,) = carry_out([planned.job], how)
    report = replace(planned.report, outcomes=(found,))
    times = [f"search {time.monotonic() - started:.1f} s"]
    if found.status != "written":
        return report
    baseline, started = Path(found.target), time.monotonic()
    donor_place = baseline.with_name(f"{baseline.name}_donor")
    with reserved(donor_place) as place:
        place.recover()
        with place.build() as hidden:
            donor = hidden / donor_place.name
            donor.mkdir()
            result = export_into(_donor_order(planned, baseline, donor), how)
            times.append(f"donor {time.monotonic() - started:.1f} s")
            started = time.monotonic()
            sweep = plan_sweep(
                baseline,
                top=planned.top,
                out=baseline.parent,
                base=planned.base,
                donors=[donor],
                sink=sink,
                cancel=cancel,
            )
            done = execute(sweep, jobs=jobs, cache=cache, sink=sink, cancel=cancel)
            shutil.rmtree(hidden)
    count = len(done.outcomes)
    times.append(f"{count} schemes {time.monotonic() - started:.1f} s")
    return replace(
        report,
        plans=(planned.job.plan, *done.plans),
        outcomes=(found, *done.outcomes),
        notes=(*result.notes, f"took: {', '.join(times)}"),
    )


def _base(model: StrPath) -> SchemeEvidence:
    read_one(Path(model))
    checkpoint = read_checkpoint(Path(model), str(model))
    if not is_full_precision(checkpoint):
        raise UsageError(
            f"{model} is no full-precision checkpoint",
            "A search starts from the model as it was before any quantization.",
        )
    return scheme_evidence(checkpoint, None)


def _names(preset: str, options: ExportOptions) -> tuple[str, str]:
    """(the name of the family, the directory of the search)."""
    words = preset.removesuffix("_CFG").removesuffix("_DEFAULT").lower()
    family = f"{words}_autoquant_all_layers_{format_token(words) or words}"
    stem = Path(options.calib).stem if options.calib else ""
    plain = _PLAIN.fullmatch(stem) and format_token(stem) is None
    return family, f"{family}_{stem}" if plain else family


def _later(baseline: str, percent: Decimal, out: Path, plan: Plan) -> Plan:
    """A scheme that will be composed once the ranking is known."""
    name = scheme_name(baseline, f"{percent.normalize():f}")
    return replace(
        plan,
        scheme=name,
        target=str(out / name),
        engine="compose",
        why=f"the {percent.normalize():f} % of the ranking that are least sensitive, from the "
        "export of all ranked layers and from the model",
    )


def _donor_order(planned: PlannedBaseline, baseline: Path, target: Path) -> ExportOrder:
    """An export of all layers that the search ranked, on the same data."""
    order = planned.job.order
    assert order is not None
    found = scheme_evidence(read_checkpoint(baseline, baseline.name), None)
    manifest = found.baseline
    ranking = eligible_ranking(manifest) if manifest else ()
    if manifest is None or not ranking:
        raise CkptdiffError(
            f"the search ranked no layer of {planned.base}", "Name another preset by --preset."
        )
    base = _base(planned.base)
    every = CoverageManifest(
        "", None, None, None, None, None, None, None, None, selected=ranking, dropped=()
    )
    partition = partition_of(every, manifest, base.coverage.modules)
    keys = tuple(sorted(partition.selected | partition.unpackable))
    preset = Preset(order.presets[0].name, keys)
    return replace(order, work="quantize", target=str(target), presets=(preset,), bits=None)
