"""One export from its order to the files: load, calibrate, pack, write."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ckptdiff.errors import UsageError
from ckptdiff.formats.calibration import DEFAULT_SOURCE
from ckptdiff.formats.manifests import BASELINE_SUFFIX
from ckptdiff.records.export import ExportOrder, ExportResult
from ckptdiff.runtime.export import drawing, sensitivity, standins
from ckptdiff.runtime.export.autoquant import Searched, search
from ckptdiff.runtime.export.calibration import batches_of
from ckptdiff.runtime.export.loading import load, place_of
from ckptdiff.runtime.export.modules import Parts
from ckptdiff.runtime.export.presets import preset, sees_inputs
from ckptdiff.runtime.export.progress import Progress
from ckptdiff.runtime.export.quantizing import beside_text, quantize
from ckptdiff.runtime.export.writing import as_json, export, write_manifest

_PART_SUFFIX = "_autoquant.json"


def carry_out(order: ExportOrder, progress: Progress) -> ExportResult:
    """Write the export that is ordered into its directory.

    Raises `UsageError` when base, presets or rows do not fit, and whatever ModelOpt raises
    for a model that it cannot quantize.
    """
    base, folder = Path(order.base), Path(order.target)
    for name in (*(each.name for each in order.presets), order.kv_cache):
        if name is not None:
            preset(name)  # says so when there is none, before anything is loaded
    model = load(base, order.dtype, order.trust_remote_code, progress)
    device = place_of(model)
    standins.install(cpu="cpu" in device)
    with progress.during("encode", None, "batches"):
        order, notes = _with_images(order, model)
        batches = batches_of(order.calibration, base, model, order.trust_remote_code)
    searched: Searched | None = None
    if order.work == "search":
        fresh = [model]
        del model

        def loaded() -> PreTrainedModel:
            if fresh:
                return fresh.pop()
            torch.cuda.empty_cache()
            return load(base, order.dtype, order.trust_remote_code, progress)

        searched = search(loaded, order, batches, progress)
        model = searched.model
        _document(order, searched, folder)
    else:
        model = quantize(model, order, batches, progress)
    listed = [key for each in order.presets for key in each.modules or Parts(model).names]
    export(model, folder, order.dtype, len(listed), progress)
    if standins.replaced and "cpu" not in device:
        notes = (*notes, f"blocks were rounded by torch: {standins.replaced[0]}")
    return ExportResult(
        producer=f"modelopt {version('nvidia-modelopt')}",
        device=device,
        batches=len(batches),
        bits=searched.bits if searched else None,
        notes=(*notes, *(searched.notes if searched else ())),
        seconds=progress.seconds,
    )


def _with_images(order: ExportOrder, model: PreTrainedModel) -> tuple[ExportOrder, tuple[str, ...]]:
    """The order with rows that reach each of its layers, and what is to be said of that.

    Raises `UsageError` when layers of a vision tower are to be calibrated on text alone.
    """
    calibration = order.calibration
    blind = not any(row.images for row in calibration.rows)
    inputs = any(sees_inputs(preset(each.name)) for each in order.presets)
    count = beside_text(model, order) if blind and inputs else 0
    if not count:
        return order, ()
    if calibration.source != DEFAULT_SOURCE:
        raise UsageError(
            f"{count} of the layers belong to a vision tower, and no row of {calibration.source} "
            "has an image",
            "Add rows with images, or give captions as COCO has them.",
        )
    rows = (*calibration.rows, *drawing.drawn(Path.cwd()))
    note = f"{drawing.COUNT} drawn images were added for the {count} layers that see images alone"
    return replace(order, calibration=replace(calibration, rows=rows)), (note,)


def _document(order: ExportOrder, searched: Searched, folder: Path) -> None:
    """The manifest and the report of a search, before the model is used up by packing."""
    recipes = sensitivity.ranking(searched.state)
    manifest = sensitivity.manifest(order, searched.state, recipes, searched.model, searched.bits)
    # A search over a part of the layers ranks no more than these: the baseline of its scheme is
    # the one that the scheme was cut from, and must not be mistaken.
    whole = order.presets[0].modules is None
    name = f"{order.scheme}{BASELINE_SUFFIX if whole else _PART_SUFFIX}"
    write_manifest(folder, name, as_json(manifest))
    write_manifest(folder, "per-layer-sensitivity.json", as_json(sensitivity.listing(recipes)))
    report = sensitivity.markdown(order, recipes, searched.bits)
    write_manifest(folder, "per-layer-sensitivity.md", report)
