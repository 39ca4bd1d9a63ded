"""Chooses who supplies each module of a new scheme, and says why where nobody can.

Headers, configs and manifests are all that is looked at: whether a donor's weights are what
base gives is proven later, before anything is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptdiff.analysis.against_base import layers_apart
from ckptdiff.analysis.ordering import natural
from ckptdiff.analysis.quantization import fused_groups, known_algorithm, module_algorithm
from ckptdiff.formats.layouts import MIXED, Algorithm
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName

# Formats whose linears share a scale with the others of their fused group.
_SHARED: tuple[LayoutName, ...] = ("nvfp4", "nvfp4-32", "int4", "int4-fp8")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who supplies which module: keys -> donor, keys -> layout to be made in, keys -> reason."""

    donors: Mapping[str, SchemeEvidence]
    made: Mapping[str, LayoutName]
    missing: Mapping[str, str]

    @property
    def used(self) -> tuple[SchemeEvidence, ...]:
        """The donors that supply something, the one that supplies most first."""
        counts = Counter(donor.checkpoint.path for donor in self.donors.values())
        by_path = {donor.checkpoint.path: donor for donor in self.donors.values()}
        return tuple(by_path[path] for path, _ in counts.most_common())


def apart_from(scheme: SchemeEvidence, base: SchemeEvidence) -> Iterator[str]:
    """Why the experts of a scheme cannot be put together with base's."""
    if layers := sorted(layers_apart(scheme, base), key=natural):
        yield (
            f"{scheme.id} and base hold {layers[0]} otherwise, one in one tensor and the other "
            "expert by expert, so that neither can stand in for the other: name a --base that has "
            "them as the scheme has, or let `--engine modelopt` make it"
        )


def refusals(scheme: SchemeEvidence, name: str) -> Iterator[str]:
    """Why a scheme of this kind cannot be composed, if it cannot."""
    if scheme.foreign:
        yield f"{name} was quantized by {scheme.foreign}, not by ModelOpt"
        return
    config = scheme.quantization
    algorithm = (config.algorithm or "") if config else ""
    claimed = set(config.layers.values()) if config and algorithm.upper() == MIXED else {algorithm}
    for each in sorted(claimed):
        if each.upper() == "NVFP4_AWQ":
            yield "NVFP4_AWQ folds scales of a layer into the one in front of it, dropped or not"
        elif not each:
            yield f"{name} has no quantization config that names an algorithm"
        elif known_algorithm(each) is None:
            yield f"the format {each} is not known"


def assign(
    wanted: Collection[str], donors: Sequence[SchemeEvidence], algorithm: str | None
) -> Assignment:
    """A donor for every wanted module key: the first, by how many of them they hold, that has
    it whole; else the closed form of `algorithm` where that needs no calibration."""
    reasons = {key: [_lacks(donor, key) for donor in donors] for key in wanted}
    held = [sum(reasons[key][n] is None for key in wanted) for n in range(len(donors))]
    order = sorted(range(len(donors)), key=lambda n: -held[n])
    form = known_algorithm(algorithm)
    assigned: dict[str, SchemeEvidence] = {}
    made: dict[str, LayoutName] = {}
    missing: dict[str, str] = {}
    for key in sorted(wanted):
        first = next((n for n in order if reasons[key][n] is None), None)
        if first is not None:
            assigned[key] = donors[first]
        elif form is not None and not needs_data(form):
            made[key] = form.layout
        else:
            missing[key] = _why(algorithm, [r for r in reasons[key] if r])
    return Assignment(assigned, made, missing)


def needs_data(algorithm: Algorithm) -> bool:
    """Whether the format holds anything that only calibration can tell."""
    return bool({"input_scale", "pre_quant_scale"} & {*algorithm.scales, *algorithm.optional})


def splits(
    selected: Collection[str], modules: Collection[str], assignment: Assignment
) -> Iterator[str]:
    """Fused groups of which only a part is selected, where the format shares scales."""
    for group in fused_groups(modules):
        chosen = [key for key in group if key in selected]
        if chosen and len(chosen) < len(group) and any(_shares(k, assignment) for k in chosen):
            rest = ", ".join(key for key in group if key not in selected)
            yield f"{', '.join(chosen)} would share scales with {rest}, which is dropped"


def _shares(key: str, assignment: Assignment) -> bool:
    donor = assignment.donors.get(key)
    layout = _layout(donor, key) if donor else assignment.made.get(key)
    if layout in _SHARED:
        return True
    if layout == "fp8-block" and donor:  # linears of one block have the group's maximum
        return not donor.scales[donor.coverage.modules[key].name]["weight_scale"].tensor.shape
    return layout == "fp8" and ".experts." in key


def _layout(donor: SchemeEvidence, key: str) -> LayoutName | None:
    form = known_algorithm(module_algorithm(donor.quantization, donor.coverage.modules[key].name))
    return form.layout if form else None


def _lacks(donor: SchemeEvidence, key: str) -> str | None:
    """Why a donor cannot supply a module; None when it can."""
    module = donor.coverage.modules.get(key)
    if module is None:
        return f"{donor.id} does not have it"
    if not module.quantized:
        return f"{donor.id} holds it in {module.dtype}"
    algorithm = module_algorithm(donor.quantization, module.name)
    form = known_algorithm(algorithm)
    layout = donor.layouts.get(key)
    if form is None or layout is None or form.layout not in layout.names:
        return f"{donor.id} does not hold it as {algorithm or 'its config says'}"
    scales = donor.scales.get(module.name, {})
    lost = [suffix for suffix in ("weight_scale", *form.scales) if suffix not in scales]
    if lost or layout.misfits:
        return f"{donor.id} holds it without a whole {lost[0] if lost else 'set of scales'}"
    return None


def _why(algorithm: str | None, reasons: Sequence[str]) -> str:
    who = "; ".join(reasons[:3]) or "there is no donor"
    return f"{who}; {algorithm or 'its format'} needs calibration data"
