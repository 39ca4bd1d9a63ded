"""One export under another coverage manifest: selected layers quantized, the rest from base.

What `ckptdiff sweep` writes to disk, in memory alone, so that every share of a ranking can be
evaluated from one export that has all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ckptdiff.analysis.composing.partition import partition_of
from ckptdiff.analysis.coverage import baseline_of
from ckptdiff.analysis.quantization import module_algorithm
from ckptdiff.errors import UsageError
from ckptdiff.formats.documents import read_object
from ckptdiff.formats.manifests import parse_coverage
from ckptdiff.formats.names import bare, norms_before
from ckptdiff.records.checkpoint import CoverageManifest, Defect, Unread
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.runtime.values import Value

_NAMED = 3


def read_manifest(path: Path) -> CoverageManifest:
    """A coverage manifest from anywhere. Raises `UsageError` when it is none."""
    document = read_object(path.parent, path.name)
    if isinstance(document, Defect | Unread):
        why = document.message if isinstance(document, Defect) else document.reason
        raise UsageError(f"{path} is no coverage manifest: {why}", "Check the path.")
    try:
        return parse_coverage(document, path.name)
    except ValueError as error:
        raise UsageError(
            f"{path} is no coverage manifest: it {error}", "Check the path."
        ) from error


def under_manifest(
    export: SchemeEvidence,
    base: SchemeEvidence,
    exported: Mapping[str, Value],
    original: Mapping[str, Value],
    manifest: CoverageManifest,
) -> dict[str, Value]:
    """The values of `export` for what `manifest` selects, those of `base` for all else.

    AWQ divides the weights of q, k, v and of gate, up by what it multiplies the norm in front
    of them by. That norm comes from the export where its group is selected and from base where
    it is dropped. Raises `UsageError` where that is not possible, and when a selected layer is
    not quantized in the export.
    """
    partition = partition_of(manifest, baseline_of(export.checkpoint), base.coverage.modules)
    if partition.unknown:
        raise UsageError(
            f"the manifest {manifest.name} names {_listed(partition.unknown)}, "
            f"which {base.checkpoint.path} does not have",
            "Name the base that the manifest was made for.",
        )
    lacking = sorted(partition.selected - export.coverage.quantized)
    if lacking:
        raise UsageError(
            f"{export.checkpoint.path} does not quantize {_listed(lacking)}, which the "
            f"manifest {manifest.name} selects",
            "Load an export that quantizes every layer; one that a search under a budget of "
            "bits produced leaves some of them out.",
        )
    folded = _folded(export, partition.selected)
    keys = {bare(name): name for name in exported}
    values = {}
    for name, value in original.items():
        key = bare(name)
        module = key.rpartition(".")[0]
        wanted = (module in partition.selected and key.endswith(".weight")) or module in folded
        values[name] = exported[keys[key]] if wanted else value
    return values


def _folded(export: SchemeEvidence, selected: frozenset[str]) -> frozenset[str]:
    """The norms that must come from the export. Raises `UsageError` where a norm belongs to
    both a selected and a dropped layer, or is not known."""
    norms: dict[str, bool] = {}
    for key in sorted(export.coverage.quantized):
        module = export.coverage.modules[key]
        algorithm = (module_algorithm(export.quantization, module.name) or "").upper()
        if "AWQ" not in algorithm:
            continue
        if algorithm == "NVFP4_AWQ":
            raise _refusal(
                export, "NVFP4_AWQ also folds scales into the linears in front of others"
            )
        if "pre_quant_scale" in export.scales.get(module.name, {}):
            continue
        known = norms_before(key) or ()
        norm = next((norm for norm in known if f"{norm}.weight" in export.tensors), None)
        if norm is None:
            raise _refusal(export, f"AWQ folded the scales of {key} into a layer that is not known")
        chosen = key in selected
        if norms.setdefault(norm, chosen) != chosen:
            raise _refusal(
                export,
                f"{norm} holds AWQ scales of {key} and of its group, which the "
                "manifest splits: no norm is right for both parts",
            )
    return frozenset(norm for norm, chosen in norms.items() if chosen)


def _refusal(export: SchemeEvidence, why: str) -> UsageError:
    return UsageError(
        f"{export.checkpoint.path} cannot be loaded under another manifest: {why}",
        "Load an export of exactly these layers instead.",
    )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
