"""`load_model`: a checkpoint as a transformers model whose weights are what their codes mean.

transformers has no quantizer for ModelOpt's exports: `from_pretrained` casts the codes and drops
the scales. Here weights are dequantised tensor by tensor on their way into the model, so loading
takes the memory of the model and a chunk.
"""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Literal

import torch
from transformers import PreTrainedModel

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.errors import CapabilityError, UsageError
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs.reading import read_one
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.runtime.activations import simulate
from ckptdiff.runtime.contents import contents
from ckptdiff.runtime.filling import Filling, arrange
from ckptdiff.runtime.selection import read_manifest, under_manifest
from ckptdiff.runtime.skeleton import DTYPES, allocate, skeleton

StrPath = str | os.PathLike[str]
Activations = Literal["off", "static"]


def load_model(
    path: StrPath,
    *,
    base: StrPath | None = None,
    manifest: StrPath | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    activations: Activations = "off",
    raw: bool = False,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model of the checkpoint at `path`, quantized or not, in eval mode.

    Every weight is what its codes and scales stand for, in `dtype` (default: that of
    config.json) on `device` (default: a GPU where there is one). With `manifest`, a coverage
    manifest, only the layers that it selects come from `path` and all others from `base`, which
    makes any share of a ranking out of one export of all layers. `activations="static"` also
    rounds the inputs of quantized linears by their input scales, as a serving engine does.
    `raw` loads codes without their scales, as `from_pretrained` does: to show what that does.

    Strict: raises `UsageError` naming a tensor that finds no parameter, a parameter that no
    tensor fills, or a weight that cannot be understood; `RootError` when there is no
    checkpoint, `CapabilityError` when the device is not there. Reads safetensors alone, and
    runs no code of the checkpoint unless `trust_remote_code`.
    """
    if activations not in ("off", "static"):
        raise UsageError(f"activations is {activations!r}", "Known are off and static.")
    if raw and (manifest is not None or activations == "static"):
        raise UsageError("raw leaves scales out", "Give it without manifest and activations.")
    if (base is None) != (manifest is None):
        raise UsageError("base and manifest go together", "Give both, or neither.")
    smooth = activations == "off"
    scheme = read_scheme(Path(path))
    values = contents(scheme, raw=raw, smooth=smooth)
    if base is not None and manifest is not None:
        original = read_scheme(Path(base))
        if original.coverage.quantized:
            raise UsageError(
                f"{base} is quantized itself",
                "Name the full-precision checkpoint that the export was made from as base.",
            )
        values = under_manifest(
            scheme, original, values, contents(original), read_manifest(Path(manifest))
        )
    model = skeleton(Path(path), _dtype(dtype), trust_remote_code)
    allocate(model, find_device(device))
    filling = Filling(model)
    arrangement = arrange(filling.places, values, str(path))
    filling.take_on(arrangement, str(path), silent, CancelToken())
    if activations == "static":
        simulate(model, filling.places, scheme, arrangement)
    return model


def read_scheme(path: Path) -> SchemeEvidence:
    """What the headers of the checkpoint at `path` say; no tensor is read.

    Raises `RootError`, and `UsageError` when part of it is not there.
    """
    checkpoint = read_one(path)
    lost = [d for d in checkpoint.defects if d.kind in ("missing-shard", "escaping-path", "twice")]
    lost += [defect for shard in checkpoint.shards for defect in shard.defects]
    if lost or not checkpoint.readable:
        why = f"{lost[0].file} {lost[0].message}" if lost else "not all of its shards can be read"
        raise UsageError(
            f"{path} cannot be loaded: {why}",
            f"`ckptdiff check {quote(str(path))}` says what is wrong.",
        )
    return scheme_evidence(checkpoint, None)


def find_device(device: torch.device | str | None) -> torch.device:
    """The device that was asked for. Raises `CapabilityError` when it is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"there is no device {device}", "Try cpu, cuda or cuda:1.") from error
    if found.type == "meta":
        raise UsageError("the device meta holds no weights", "Try cpu, cuda or cuda:1.")
    if found.type not in ("cpu", "cuda"):
        try:
            torch.empty(0, device=found)
        # Each backend has its own way to say that it is not there.
        except Exception as error:
            raise CapabilityError(
                f"this torch has nothing that runs on {device}", "Run on cpu, or on a GPU by cuda."
            ) from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise CapabilityError(
            f"{device} is not there: torch sees {count} GPUs",
            "Run on cpu, or install a torch built for this machine's GPU.",
        )
    return found


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    known = f"Known are {', '.join(DTYPES)}; leave it out for the dtype of config.json."
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise UsageError(f"dtype is {dtype!r}", known)
        return DTYPES[dtype]
    if dtype not in (None, torch.float64, *DTYPES.values()):
        raise UsageError(f"dtype is {dtype}", known)
    return dtype
