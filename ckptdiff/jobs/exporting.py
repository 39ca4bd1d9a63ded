"""Carries exports by ModelOpt out: a child writes beside the target, the result is checked and
gets its name.

Whatever stops this leaves sources and originals as they were, and nothing half-made under a
final name. What was written is judged by the `verify` that the caller hands in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ckptdiff.errors import ChildError, UsageError
from ckptdiff.jobs.children import Child, Program, require
from ckptdiff.jobs.export_planning import ExportJob
from ckptdiff.jobs.placing import (
    Filled,
    How,
    copy_file,
    size_of,
    sync_tree,
    write_all,
    write_file,
)
from ckptdiff.jobs.planning import PROVENANCE
from ckptdiff.jobs.resuming import inputs_of
from ckptdiff.jobs.staging import umask
from ckptdiff.records.export import ExportOrder, ExportResult
from ckptdiff.records.plan import Outcome

PROGRAM = Program(
    module="ckptdiff.runtime.export",
    title="the export by ModelOpt",
    extra="probe,modelopt",
    packages=("torch", "transformers", "accelerate", "modelopt", "requests"),
    environment={
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Without a workspace of fixed size cuBLAS may add up in another order each time.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    },
)
# Presets for a KV cache alone: FP8_KV_CFG, NVFP4_AFFINE_KV_CFG and their like.
_OF_CACHE = re.compile(r"_KV(_[A-Z]+)?_CFG$")
_ASSIGNED = re.compile(r"^([A-Z]\w*)\b[^=\n]*=", re.MULTILINE)


def require_preset(name: str) -> None:
    """Raise `UsageError` when the ModelOpt that is installed has no preset of that name.

    Importing it takes seconds, so its sources are read as text: a name that they do not assign is
    refused, and whether one that they assign is a preset is for the child to say.
    """
    spec = find_spec("modelopt")
    folders = (spec.submodule_search_locations or []) if spec else []
    assigned = {
        found
        for folder in folders
        for file in Path(folder, "torch", "quantization").glob("*.py")
        for found in _ASSIGNED.findall(file.read_text(encoding="utf-8", errors="replace"))
    }
    known = sorted(n for n in assigned if n.endswith("_CFG") and not _OF_CACHE.search(n))
    if known and name not in assigned:
        raise UsageError(f"ModelOpt has no preset {name}", f"It has {', '.join(known)}.")
    if _OF_CACHE.search(name):
        raise UsageError(
            f"{name} quantizes a KV cache and no weight",
            f"Name one of {', '.join(known)}; a scheme's cache is quantized as its config says.",
        )


def carry_out(jobs: Sequence[ExportJob], how: How) -> tuple[Outcome, ...]:
    """Write the scheme of every plan, one after the other; what keeps one from being written
    is in its outcome.

    Raises `UsageError` before anything is written when a plan is impossible, `CapabilityError`
    when ModelOpt is not installed, and `Cancelled`.
    """
    todo = [(job.plan, partial(_fill, job, job.order, how)) for job in jobs if job.order]
    if len(todo) < len(jobs):
        raise UsageError("not every plan can be carried out", "The plans say what is missing.")
    require(PROGRAM)
    return write_all(todo, how)


def _fill(job: ExportJob, order: ExportOrder, how: How, folder: Path) -> Filled:
    """The export and all that goes with it, judged."""
    base, inputs = inputs_of(order, how.hashing, how.sink, how.cancel)
    result = export_into(replace(order, target=str(folder)), how)
    _settle(folder)
    for name, path in job.copies.items():
        if not (folder / name).exists():
            copy_file(Path(path), folder / name)
    for name, content in job.documents.items():
        write_file(folder / name, content)
    fingerprint = how.verify(folder)
    provenance = {
        "schema": "ckptdiff.provenance/1",
        "tool": asdict(how.tool),
        "engine": job.plan.engine,
        "scheme": job.plan.scheme,
        "algorithm": job.plan.algorithm,
        "fingerprint": fingerprint,
        "base": {"name": Path(order.base).name, "fingerprint": base},
        "inputs": inputs,
        **_described(order, result),
    }
    write_file(folder / PROVENANCE, (json.dumps(provenance, indent=2) + "\n").encode("ascii"))
    sync_tree(folder)
    return Filled(fingerprint, size_of(folder), result.notes, result.seconds)


def export_into(order: ExportOrder, how: How) -> ExportResult:
    """What the child says once it has written everything into the order's directory.

    Raises `ChildError` with the end of its log, or the error that it ended with.
    """
    found: ExportResult | None = None
    with Child(PROGRAM, log=how.log) as child:
        # The child has a working directory of its own.
        base, target = str(Path(order.base).absolute()), str(Path(order.target).absolute())
        child.send(asdict(replace(order, base=base, target=target)))
        for message in child.messages(how.sink, how.cancel):
            fields = {key: value for key, value in message.items() if key != "kind"}
            found = ExportResult(**{**fields, "notes": tuple(fields["notes"])})
    if found is None:
        raise ChildError(f"{PROGRAM.title} ended without a result", "Run this again.")
    return found


def _settle(folder: Path) -> None:
    """Modes as for any new file, and bytes that last: exporters write weights as they like."""
    mode = 0o666 & ~umask()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _described(order: ExportOrder, result: ExportResult) -> dict[str, Any]:
    """What the export was made by; no clock and no path, so that the same inputs give the same
    bytes on one machine."""
    calibration = order.calibration
    document: dict[str, Any] = {
        "producer": result.producer,
        "device": result.device,
        "presets": [preset.name for preset in order.presets],
        "kv_cache": order.kv_cache,
        "calibration": {
            "source": calibration.source,
            "rows": len(calibration.rows),
            "length": calibration.length,
            "seed": calibration.seed,
        },
    }
    if order.work == "search":
        document["search"] = {
            "score": order.score,
            "asked_bits": order.bits,
            "bits": result.bits,
        }
    return document
