"""Exports by ModelOpt as `reexport` and `sweep` use them: which engine, with what, on what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ckptdiff.errors import CapabilityError, UsageError
from ckptdiff.formats.calibration import read_calibration
from ckptdiff.jobs.children import require
from ckptdiff.jobs.export_planning import ExportJob, ExportSettings, plan_export
from ckptdiff.jobs.exporting import PROGRAM, require_preset
from ckptdiff.jobs.planning import Job, Wish
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.export import Calibration, ExportOptions
from ckptdiff.records.plan import ENGINES, Engine, Plan

_ASKED = {
    "modelopt": "was asked for: quantizes the layers that the manifest selects, and no other",
    "autoquant": "was asked for: a search over the layers that the manifest selects, at the least "
    "bits that it can have, which quantizes them all",
}


def calibration(options: ExportOptions) -> Calibration:
    """The rows of an export. Raises `UsageError` naming what is wrong with file or numbers."""
    if options.calib_samples < 1 or options.calib_length < 1:
        raise UsageError("samples and length are counts", "They are 1 or more.")
    path = None if options.calib is None else Path(options.calib)
    return read_calibration(
        path, samples=options.calib_samples, length=options.calib_length, seed=options.seed
    )


def require_engine(engine: str, options: ExportOptions) -> None:
    """Raise `UsageError` for an engine that is not known or has no use for what was chosen, or
    for a preset that is not known, `CapabilityError` for an engine that is not installed."""
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}", f"Engines are {', '.join(ENGINES)}.")
    if engine in _ASKED:
        require(PROGRAM)
    if engine == "compose" and options != ExportOptions():
        raise UsageError(
            "composing runs no model",
            "Leave out --preset, --calib and their like, or name --engine modelopt or autoquant.",
        )
    if options.preset is not None:
        require_preset(options.preset)


def by_engine(
    engine: Engine,
    composed: Job,
    wish: Wish,
    base: SchemeEvidence | None,
    note: str,
    options: ExportOptions,
    rows: Calibration,
) -> Job | ExportJob:
    """The job of one scheme by the engine that was asked for; `composed` is the one that takes
    tensors from donors. "auto" takes that where every module of it is provable."""
    if engine == "compose":
        return composed

    def planned(kind: Engine, why: str) -> ExportJob:
        assert kind in ("modelopt", "autoquant")
        settings = ExportSettings(
            engine=kind,
            why=why,
            calibration=rows,
            preset=options.preset,
            score=options.score,
            trust_remote_code=options.trust_remote_code,
        )
        job = plan_export(wish, base, note, settings)
        if kind == "autoquant":
            return job
        return replace(job, plan=_noted(job.plan, *_idle(options, runs=True)))

    if engine != "auto":
        return planned(engine, _ASKED[engine])
    doubt = _doubt(composed, options)
    composed = replace(composed, plan=_noted(composed.plan, *_idle(options, runs=False)))
    if doubt is None:
        return composed
    try:
        require(PROGRAM)
    except CapabilityError as error:
        told = f"{doubt}; for --engine modelopt, {error.message} ({error.next_step})"
        return replace(composed, plan=_noted(composed.plan, told))
    export = planned("modelopt", f"chosen because {doubt}")
    return export if export.plan.possible else composed


def _noted(plan: Plan, *notes: str) -> Plan:
    return replace(plan, notes=(*plan.notes, *notes))


def _idle(options: ExportOptions, runs: bool) -> list[str]:
    """What was chosen and changes nothing without a search, and, unless one `runs`, without a
    model."""
    notes = []
    if options.calib is not None and not runs:
        notes.append("no model is run, so that --calib changes nothing: --engine modelopt runs one")
    if options.score != ExportOptions().score:
        notes.append(
            "nothing is searched, so that --score changes nothing: --engine autoquant searches"
        )
    return notes


def _doubt(composed: Job, options: ExportOptions) -> str | None:
    """Why a composition is not the engine of choice; None when it is."""
    plan = composed.plan
    if options.preset is not None:
        return f"the preset {options.preset} was named"
    if plan.refused:
        return f"it cannot be composed ({plan.refused[0]})"
    if plan.missing:
        return f"no donor has {len(plan.missing)} of its modules ({plan.missing[0].reason})"
    weak = sum(module.evidence == "distance" for module in plan.selected)
    if weak:
        return f"{weak} of {len(plan.selected)} modules of a composition could not be proven"
    return None
