"""Plans an export by ModelOpt: which modules, in which presets, in which dtype, on what data.

A plan is whole before anything is loaded; carrying it out is `exporting`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ckptdiff.analysis.against_base import FLOATS
from ckptdiff.analysis.composing.partition import Partition, partition_of
from ckptdiff.analysis.quantization import known_algorithm, module_algorithm
from ckptdiff.formats.calibration import DEFAULT_SOURCE
from ckptdiff.formats.layouts import MIXED
from ckptdiff.formats.names import expert_layer
from ckptdiff.formats.presets import cache_preset_of, preset_of
from ckptdiff.jobs.planning import (
    STAYS,
    Wish,
    algorithm_of,
    begun,
    carried,
    dropped_modules,
    no_manifest,
)
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.export import Calibration, ExportOrder, Preset, Score
from ckptdiff.records.layout import LayoutName
from ckptdiff.records.plan import CarriedFile, MissingModule, Plan, SelectedModule

# Bits of a weight with the scales of its blocks.
_BITS: Mapping[LayoutName, float] = {
    "fp8": 8, "fp8-channel": 8, "fp8-block": 8, "int8": 8, "int4": 4.25, "int4-fp8": 4.25,
    "nvfp4": 4.5, "nvfp4-32": 4.25, "mxfp8": 8.25, "mxfp4": 4.25,
}  # fmt: skip
# Presets whose weights depend on the data.
_SEARCHED = ("AWQ", "SMOOTHQUANT", "SVDQUANT")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What somebody asked for beside the scheme. `preset` None: that of the scheme's config."""

    engine: Literal["modelopt", "autoquant"]
    why: str
    calibration: Calibration
    preset: str | None = None
    score: Score = "gradient"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ExportJob:
    """A plan and, where it is possible, the order that carries it out. `copies` and
    `documents` go beside the export, by their names in it."""

    plan: Plan
    order: ExportOrder | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)


def plan_export(
    wish: Wish, base: SchemeEvidence | None, note: str, settings: ExportSettings
) -> ExportJob:
    """The plan for one scheme; `note` says why there is no base. Never raises for what the
    checkpoints hold: what stands in the way is in the plan."""
    plan = begun(wish, (), base, engine=settings.engine, why=settings.why)
    if base is None:
        return _refused(plan, f"there is no base: {note}")
    if wish.manifest is None:
        return _refused(plan, no_manifest(wish))
    if wish.fallback.foreign and settings.preset is None:
        return _refused(
            plan,
            f"{wish.fallback.id} was quantized by {wish.fallback.foreign}, not by ModelOpt: "
            "--preset says what to make of it",
        )
    partition = partition_of(wish.manifest, wish.baseline, base.coverage.modules)
    if reasons := tuple(_reasons(partition, base)):
        return _refused(plan, *reasons)
    presets, missing = _presets(wish, partition, base, settings.preset)
    if settings.engine == "autoquant" and len(presets) > 1:
        return _refused(
            plan,
            "it mixes formats, and a search over them would mix them anew: --engine modelopt "
            "repeats the mixture",
        )
    plan = replace(plan, missing=missing)
    if missing:
        return ExportJob(plan)
    order = ExportOrder(
        work="search" if settings.engine == "autoquant" else "quantize",
        scheme=wish.name,
        base=base.checkpoint.path,
        target="",
        presets=presets,
        dtype=host_dtype(wish.fallback, base),
        calibration=settings.calibration,
        kv_cache=_cache(wish.fallback),
        score=settings.score,
        trust_remote_code=settings.trust_remote_code,
    )
    return _whole(plan, order, wish, partition, base, settings)


def host_dtype(scheme: SchemeEvidence, base: SchemeEvidence) -> str:
    """The dtype in which most weights of a scheme that are not quantized are stored; base's
    where the scheme cannot tell."""
    for each in (scheme, base):
        sizes: Counter[str] = Counter()
        for key, (_, tensor, _) in each.tensors.items():
            if tensor.dtype in FLOATS and key in base.tensors:
                sizes[tensor.dtype] += tensor.nbytes
        if sizes:
            return sizes.most_common(1)[0][0]
    return "BF16"


def _whole(
    plan: Plan,
    order: ExportOrder,
    wish: Wish,
    partition: Partition,
    base: SchemeEvidence,
    settings: ExportSettings,
) -> ExportJob:
    copies = dict(carried(wish, wish.fallback, base))
    searched = any(word in preset.name for preset in order.presets for word in _SEARCHED)
    names = [preset.name for preset in order.presets]
    modules = base.coverage.modules
    plan = replace(
        plan,
        algorithm=plan.algorithm if settings.preset is None else settings.preset,
        selected=tuple(
            SelectedModule(modules[key].name, None, "distance" if searched else "proven")
            for key in sorted(partition.selected)
        ),
        dropped=tuple(dropped_modules(partition, base)),
        notes=tuple(_notes(plan, order, names, searched)),
        carried=tuple(CarriedFile(name, source) for name, (_, source) in copies.items()),
        bytes=_size(plan.algorithm, partition, base)
        + sum(path.stat().st_size for path, _ in copies.values()),
    )
    return ExportJob(
        plan,
        order,
        copies={name: str(path) for name, (path, _) in copies.items()},
        documents=wish.documents,
    )


def _reasons(partition: Partition, base: SchemeEvidence) -> Iterator[str]:
    """What ModelOpt cannot do with these layers."""
    if partition.unknown:
        yield f"base has no {', '.join(partition.unknown[:3])}, which the manifest selects"
    if not partition.selected:
        yield "the manifest selects no module that an export can pack"
    layers: dict[str, set[bool]] = {}
    for key in base.coverage.modules:
        if layer := expert_layer(key):
            layers.setdefault(layer, set()).add(key in partition.selected)
    for layer, chosen in layers.items():
        if len(chosen) > 1:
            yield f"only some experts of {layer} are selected, and ModelOpt treats them as one"


def _presets(
    wish: Wish, partition: Partition, base: SchemeEvidence, named: str | None
) -> tuple[tuple[Preset, ...], tuple[MissingModule, ...]]:
    """The presets with their modules, and the modules that nothing gives a preset."""
    chosen = sorted(partition.selected | partition.unpackable)
    if named is not None:
        return (Preset(named, tuple(chosen)),), ()
    config = wish.fallback.quantization
    smoothed = any("pre_quant_scale" in scales for scales in wish.fallback.scales.values())
    mixed = config is not None and (config.algorithm or "").upper() == MIXED
    found: dict[str, list[str]] = {}
    missing = []
    for key in chosen:
        module = base.coverage.modules[key]
        algorithm = (
            module_algorithm(config, _spelled(wish.fallback, module))
            if mixed
            else algorithm_of(wish, ())
        )
        preset = preset_of(algorithm, smoothed=smoothed) if algorithm else None
        if preset is not None:
            found.setdefault(preset, []).append(key)
        elif key in partition.selected:
            missing.append(MissingModule(module.name, _unknown(algorithm)))
    # The one that most modules have comes first, and is the frame for the others.
    order = sorted(found, key=lambda name: (-len(found[name]), name))
    return tuple(Preset(name, tuple(found[name])) for name in order), tuple(missing)


def _spelled(scheme: SchemeEvidence, module: Module) -> str:
    """The name of a module of base in the scheme."""
    theirs = scheme.coverage.modules.get(module.key)
    return theirs.name if theirs else module.name


def _unknown(algorithm: str | None) -> str:
    what = f"no preset writes {algorithm}" if algorithm else "its config names no algorithm for it"
    return f"{what}; --preset names one"


def _cache(scheme: SchemeEvidence) -> str | None:
    config = scheme.quantization
    cached = config.kv_cache_algorithm if config else None
    return cache_preset_of(cached) if cached else None


def _notes(plan: Plan, order: ExportOrder, names: Sequence[str], searched: bool) -> Iterator[str]:
    data = order.calibration
    rows = "1 row" if len(data.rows) == 1 else f"{len(data.rows)} rows"
    yield (
        f"{' and '.join(names)}, calibrated on {rows} of {data.source}: input "
        "scales are those of other schemes only where the data is"
    )
    if data.source == DEFAULT_SOURCE:
        yield (
            "the built-in prompts are a few short texts, there so that this runs; a model that "
            "will be used wants data of its kind, by --calib"
        )
    if searched:
        yield (
            "weights of this format depend on the data: what is written is held against base by "
            "its distance alone, which is weaker than a proof"
        )
    if plan.original is not None and not plan.in_place:
        yield STAYS


def _size(algorithm: str | None, partition: Partition, base: SchemeEvidence) -> int:
    """About how many bytes will be written."""
    form = known_algorithm(algorithm)
    bits = _BITS[form.layout] if form else 8.25
    whole = sum(tensor.nbytes for _, tensor, _ in base.tensors.values())
    saved = 0.0
    for key in partition.selected:
        module = base.coverage.modules[key]
        stored = base.tensors[f"{key}.weight"][1].nbytes
        saved += stored - module.elements * bits / 8
    return max(0, int(whole - saved))


def _refused(plan: Plan, *reasons: str) -> ExportJob:
    return ExportJob(replace(plan, refused=reasons))
