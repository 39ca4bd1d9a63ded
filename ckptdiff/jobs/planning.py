"""Plans a composed scheme: reads headers, configs and names, decides nothing about weights.

A plan is whole: what is selected, who supplies it, what is missing and why, how much will be
written where. Carrying it out is `composing`'s.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ckptdiff.analysis.against_base import algorithms_of
from ckptdiff.analysis.composing.composition import Ingredients, compose
from ckptdiff.analysis.composing.donors import Assignment, apart_from, assign, refusals, splits
from ckptdiff.analysis.composing.partition import Partition, partition_of
from ckptdiff.errors import UsageError
from ckptdiff.formats.checkpoint import COMPANIONS
from ckptdiff.formats.configs import CONFIG_NAME, QUANT_CONFIG_NAME
from ckptdiff.formats.discovery import model_identity
from ckptdiff.formats.documents import JsonObject, read_object
from ckptdiff.formats.layouts import MIXED
from ckptdiff.formats.manifests import BASELINE_SUFFIX, COVERAGE_SUFFIX, MANIFEST_DIR
from ckptdiff.records.checkpoint import (
    BaselineManifest,
    Checkpoint,
    CoverageManifest,
    Defect,
    Unread,
)
from ckptdiff.records.composition import Composition
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName
from ckptdiff.records.plan import CarriedFile, Donor, MissingModule, Plan, SelectedModule
from ckptdiff.sources.listing import list_directory
from ckptdiff.sources.local import Unreadable

PROVENANCE = f"{MANIFEST_DIR}/ckptdiff-provenance.json"
# Beside the tokenizer's and processor's files: what generation and models of their own need.
_MORE = ("generation_config.json", "added_tokens.json")
_WEIGHTS = (".safetensors", ".safetensors.index.json")
_SHOWN = 8
# With these, which tensor is meant by a name is anybody's guess.
_AMBIGUOUS = ("twice", "two-readings", "mixed-prefixes", "absent-tensor")
_CODE = re.compile(r"(configuration|modeling|processing|tokenization|image_processing)_\w+\.py")
# Said of an original that is not replaced.
STAYS = (
    "the original stays where it is, and goes on failing `ckptdiff check` if it does now; "
    "--in-place sets it aside"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """One scheme that somebody wants.

    `manifest` says what it selects (None: nothing says that), `documents` are manifests that
    are written into it, `original` is the scheme that it repairs, `fallback` the one whose
    configs are taken when no donor supplies anything.
    """

    name: str
    target: Path
    manifest: CoverageManifest | None
    baseline: BaselineManifest | None
    fallback: SchemeEvidence
    original: SchemeEvidence | None = None
    in_place: bool = False
    documents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A plan and, where it is possible, what carries it out."""

    plan: Plan
    composition: Composition | None


def begun(
    wish: Wish,
    donors: Sequence[SchemeEvidence],
    base: SchemeEvidence | None,
    *,
    engine: Literal["compose", "modelopt", "autoquant"],
    why: str,
) -> Plan:
    """What a plan says of a scheme before anybody looked at how it can be made."""
    return Plan(
        scheme=wish.name,
        target=str(wish.target),
        original=None if wish.original is None else wish.original.checkpoint.path,
        in_place=wish.in_place,
        engine=engine,
        why=why,
        algorithm=algorithm_of(wish, donors),
        base=None if base is None else base.checkpoint.path,
        provenance=PROVENANCE,
        free=free_bytes(wish.target),
    )


def plan_scheme(
    wish: Wish, donors: Sequence[SchemeEvidence], base: SchemeEvidence | None, note: str
) -> Job:
    """The plan for one scheme; `note` says why there is no base. Never raises for what the
    checkpoints hold: what stands in the way is in the plan."""
    why = (
        "calibration does not depend on which layers are quantized, so every tensor of the "
        "subset is in a donor or in base"
    )
    plan = begun(wish, donors, base, engine="compose", why=why)
    if base is None:
        return _refused(plan, f"there is no base: {note}")
    if wish.manifest is None:
        return _refused(plan, no_manifest(wish))
    if apart := tuple(apart_from(wish.fallback, base)):
        return _refused(plan, *apart)
    partition = partition_of(wish.manifest, wish.baseline, base.coverage.modules)
    if partition.unknown:
        names = ", ".join(partition.unknown[:3])
        return _refused(plan, f"base has no {names}, which the manifest selects")
    if not partition.selected:
        return _refused(plan, "the manifest selects no module that an export can pack")
    assignment = assign(partition.selected, donors, plan.algorithm)
    template = next(iter(assignment.used), wish.fallback)
    plan = _described(plan, partition, assignment, base)
    refused = [*refusals(template, template.id), *apart_from(template, base)]
    refused += splits(partition.selected, base.coverage.modules, assignment)
    if refused:
        return _refused(plan, *refused)
    if plan.missing:
        return Job(plan, None)
    return _composed(plan, wish, partition, assignment, template, base)


def unusable(donor: SchemeEvidence, base: SchemeEvidence, algorithm: str | None) -> str | None:
    """Why a checkpoint cannot be a donor for a scheme of this algorithm; None when it can."""
    mine, theirs = donor.checkpoint.config, base.checkpoint.config
    if donor.foreign:
        return f"was quantized by {donor.foreign}, not by ModelOpt"
    if not donor.coverage.quantized:
        return "holds no quantized module"
    if mine is None or theirs is None or model_identity(mine) != model_identity(theirs):
        return "is another model than the base"
    own = (donor.algorithm or "").upper()
    if algorithm and own not in (algorithm.upper(), MIXED):
        return f"is {donor.algorithm or 'of no algorithm that its config names'}, not {algorithm}"
    return None


def _composed(
    plan: Plan,
    wish: Wish,
    partition: Partition,
    assignment: Assignment,
    template: SchemeEvidence,
    base: SchemeEvidence,
) -> Job:
    try:
        quant_configs = [_document(s, QUANT_CONFIG_NAME) for s in assignment.used or (template,)]
        config = _document(template, CONFIG_NAME)
        ingredients = Ingredients(
            base, template, partition, assignment, config, quant_configs[0], tuple(quant_configs)
        )
        composition = compose(ingredients)
    except UsageError as error:
        return _refused(plan, error.message)
    copies = dict(carried(wish, template, base))
    composition = replace(
        composition,
        documents={**composition.documents, **wish.documents},
        copies={name: str(path) for name, (path, _) in copies.items()},
    )
    size = sum(path.stat().st_size for path, _ in copies.values())
    plan = replace(
        plan,
        carried=tuple(CarriedFile(name, source) for name, (_, source) in copies.items()),
        bytes=composition.nbytes + size,
        notes=(*plan.notes, *_losses(wish, {*composition.documents, *copies})),
    )
    return Job(plan, composition)


def _described(
    plan: Plan, partition: Partition, assignment: Assignment, base: SchemeEvidence
) -> Plan:
    modules = base.coverage.modules
    advice = "name a --donor that holds it"
    if plan.original is not None:  # a new scheme has nothing that another engine could begin with
        advice += ", or let `--engine modelopt` make it"
    searched = {donor.id: _searched(donor) for donor in assignment.used}
    selected = []
    for key in sorted(partition.selected - assignment.missing.keys()):
        donor = assignment.donors.get(key)
        selected.append(
            SelectedModule(
                modules[key].name,
                donor.id if donor else None,
                "distance" if donor and key in searched[donor.id] else "proven",
            )
        )
    counts = {donor.id: 0 for donor in assignment.used}
    for donor in assignment.donors.values():
        counts[donor.id] += 1
    return replace(
        plan,
        donors=tuple(
            Donor(d.id, d.checkpoint.path, d.algorithm, counts[d.id]) for d in assignment.used
        ),
        selected=tuple(selected),
        dropped=tuple(dropped_modules(partition, base)),
        missing=tuple(
            MissingModule(modules[key].name, f"{why}: {advice}")
            for key, why in assignment.missing.items()
        ),
        notes=tuple(_notes(plan, selected, assignment)),
    )


def dropped_modules(partition: Partition, base: SchemeEvidence) -> Iterator[str]:
    """Modules of the ranking's kind that stay as base has them."""
    for key, module in base.coverage.modules.items():
        if key in base.coverage.scope and key not in partition.selected:
            yield module.name


def _notes(
    plan: Plan, selected: Collection[SelectedModule], assignment: Assignment
) -> Iterator[str]:
    searched = sum(module.evidence == "distance" for module in selected)
    if searched:
        yield (
            f"{searched} of {len(selected)} modules are of a format that was searched with "
            "calibration data: no form says what their weights must be, so they are held against "
            "base by their distance alone, which is weaker than a proof"
        )
    if assignment.made:
        yield f"{len(assignment.made)} modules are made from base by their format's closed form"
    if any(_has_input_scale(donor, key) for key, donor in assignment.donors.items()):
        yield (
            "input scales are what a donor's calibration gave: no form proves them, so they are "
            "taken as they are"
        )
    if len(assignment.used) > 1:
        yield (
            f"tensors come from {len(assignment.used)} donors; that they were calibrated on the "
            "same data is not known from their files"
        )
    if plan.original is not None and not plan.in_place:
        yield STAYS


def _losses(wish: Wish, written: Collection[str]) -> Iterator[str]:
    """What of the original is not in its re-export, or not followed."""
    if wish.original is None:
        return
    manifests = wish.original.checkpoint.coverage
    if len(manifests) > 1:
        yield (
            f"{wish.original.id} has {len(manifests)} coverage manifests; {manifests[0].name} is "
            "followed"
        )
    if left := sorted(_left_behind(Path(wish.original.checkpoint.path), written)):
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        shown = ", ".join(left[:_SHOWN]) + more
        yield f"what {wish.original.id} also holds is not carried: {shown}"


def _left_behind(folder: Path, written: Collection[str]) -> Iterator[str]:
    """Files and folders of a checkpoint that another one of its kind would not have. Weights
    and their index are not among them, because they are written anew."""
    own = {*written, PROVENANCE, MANIFEST_DIR}
    for parent in ("", f"{MANIFEST_DIR}/"):
        try:
            entries = list(list_directory(folder / parent))
        except Unreadable:
            continue
        for entry in entries:
            name = f"{parent}{entry.name}"
            if name not in own and not name.endswith(_WEIGHTS):
                yield f"{name}/" if entry.is_directory else name


def _has_input_scale(donor: SchemeEvidence, key: str) -> bool:
    return "input_scale" in donor.scales.get(donor.coverage.modules[key].name, {})


def _searched(donor: SchemeEvidence) -> frozenset[str]:
    """Keys of the modules whose weights calibration data decided: AWQ and SmoothQuant."""
    formats: set[LayoutName] = {"int4", "int4-fp8"}
    if "NVFP4_AWQ" in algorithms_of(donor):
        formats.add("nvfp4")
    return frozenset(
        key
        for key in donor.coverage.quantized & donor.layouts.keys()
        if "pre_quant_scale" in donor.scales.get(donor.coverage.modules[key].name, {})
        or formats.intersection(donor.layouts[key].names)
    )


def carried(
    wish: Wish, template: SchemeEvidence, base: SchemeEvidence
) -> Iterator[tuple[str, tuple[Path, str]]]:
    """(name, (path, id of the checkpoint)) of the files that are copied."""
    sources = [wish.original, template, wish.fallback, base]
    seen: set[str] = set()
    for scheme in (scheme for scheme in sources if scheme is not None):
        for name, found in companions(scheme):
            if name not in seen:
                seen.add(name)
                yield name, found
    if wish.original is not None:
        folder = Path(wish.original.checkpoint.path)
        own = [n for n in _names(folder) if n.endswith((COVERAGE_SUFFIX, BASELINE_SUFFIX))]
        own += [f"{MANIFEST_DIR}/{name}" for name in _names(folder / MANIFEST_DIR)]
        for name in own:
            if name != PROVENANCE and (folder / name).is_file():
                yield name, (folder / name, wish.original.id)


def companions(scheme: SchemeEvidence) -> Iterator[tuple[str, tuple[Path, str]]]:
    """(name, (path, id of the checkpoint)) of the files that belong to tokenizer, processor,
    generation and models with code of their own."""
    folder = Path(scheme.checkpoint.path)
    for name in _names(folder):
        wanted = name in (*COMPANIONS, *_MORE) or _CODE.fullmatch(name)
        if wanted and (folder / name).is_file():
            yield name, (folder / name, scheme.id)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(entry.name for entry in list_directory(folder) if not entry.is_directory)
    except Unreadable:
        return ()


def _document(scheme: SchemeEvidence, name: str) -> JsonObject:
    """A config of a scheme, raw. Raises `UsageError` when it cannot be read or understood."""
    found = read_object(Path(scheme.checkpoint.path), name)
    # Whatever its parser stumbled over would be copied, or stumbled over here.
    damage = (defect for defect in scheme.checkpoint.defects if defect.file == name)
    match next(damage, found):
        case Defect() as defect:
            problem = defect.message
        case Unread() as unread:
            problem = unread.reason
        case found:
            return found
    raise UsageError(f"{name} of {scheme.id} cannot be used: {problem}", "Name another --donor.")


def algorithm_of(wish: Wish, donors: Sequence[SchemeEvidence]) -> str | None:
    """The algorithm of the scheme; where its own config is lost, of its donors."""
    for scheme in (wish.original, wish.fallback, *donors):
        if scheme is not None and scheme.algorithm:
            return scheme.algorithm
    return None


def no_manifest(wish: Wish) -> str:
    if wish.original is not None and wish.original.is_baseline:
        return (
            f"{wish.original.id} has a baseline manifest and no coverage manifest that could be "
            "read, as the baseline of a search: it declares no subset"
        )
    return "it has no coverage manifest that could be read, so nothing says what it selects"


def _refused(plan: Plan, *reasons: str) -> Job:
    return Job(replace(plan, refused=reasons), None)


def free_bytes(target: Path) -> int | None:
    """Bytes free where `target` will be, None when the file system does not say."""
    for above in target.absolute().parents:
        if above.is_dir():
            try:
                return shutil.disk_usage(above).free
            except OSError:
                return None
    return None


def broken(checkpoint: Checkpoint) -> bool:
    """Whether headers of a checkpoint cannot be trusted, so that it can donate nothing."""
    ambiguous = any(defect.kind in _AMBIGUOUS for defect in checkpoint.defects)
    return ambiguous or not checkpoint.readable or any(s.defects for s in checkpoint.shards)
