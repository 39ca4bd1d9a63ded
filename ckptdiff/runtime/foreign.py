"""Weights that other exporters than ModelOpt wrote, as values of parameters.

How they are packed is `ckptdiff.analysis.packings`' to say, how unpacked `unpacking`'s.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from ckptdiff.analysis.packings import BESIDE, METHODS, Packing, packings_of
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.analysis.unpacking import open_rows
from ckptdiff.errors import UsageError
from ckptdiff.formats.names import weight_module
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.runtime.values import Chunks, Value, odd, plain

# Scales of inputs and caches are not used.
_UNUSED = (
    "input_scale", "input_zero_point", "input_global_scale", "output_scale", "k_scale", "v_scale",
)  # fmt: skip
_OF_CACHE = ("k_scale", "v_scale")


def foreign_contents(scheme: SchemeEvidence) -> dict[str, Value]:
    """As `contents`, for a checkpoint whose `quant_method` is not ModelOpt's.

    Raises `UsageError` for a method or a tensor that is not understood.
    """
    if scheme.foreign not in METHODS:
        raise UsageError(
            f"{scheme.checkpoint.path} was quantized by {scheme.foreign}, which is not known",
            f"Known are ModelOpt, {', '.join(METHODS)}.",
        )
    packings = packings_of(scheme)
    tensors = {name: (tensor, shard) for name, tensor, shard in scheme.checkpoint.items()}
    modules = {weight_module(name) for name in packings}
    found: dict[str, Value] = {}
    for name, (tensor, shard) in tensors.items():
        stem, _, leaf = name.rpartition(".")
        packed = packings.get(name)
        if isinstance(packed, str):
            raise odd(scheme, name, packed)
        if packed is not None:
            found |= {f"{packing.module}.weight": _value(scheme, packing) for packing in packed}
        elif leaf in BESIDE or leaf in _UNUSED:
            if stem not in modules and leaf not in _OF_CACHE:
                raise odd(scheme, name, "belongs to no quantized weight")
        elif not (leaf.endswith("_scales") and f"{name.removesuffix('_scales')}_blocks" in tensors):
            found[name] = plain(scheme, name, tensor, shard)
    return found


def _value(scheme: SchemeEvidence, packing: Packing) -> Value:
    names = (packing.name, *(name for name, _ in packing.beside.values()))
    digests = [scheme.digests.get(name) for name in names]
    return Value(
        shape=packing.shape,
        key=None if None in digests else (packing.kind, *digests),
        tensor=packing.name,
        shard=packing.shard,
        chunks=partial(_chunks, packing),
    )


def _chunks(packing: Packing, reader: TensorReader, elements: int, device: torch.device) -> Chunks:
    rows = open_rows(packing, reader)
    count, columns = packing.shape
    step = max(1, elements // max(1, columns) // packing.grain) * packing.grain
    for first in range(0, count, step):
        stop = min(first + step, count)
        values = rows.values(rows.stored(first, stop), first)
        yield first, torch.from_numpy(np.ascontiguousarray(values))
