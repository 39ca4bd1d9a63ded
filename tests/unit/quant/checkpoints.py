"""Reads real exports with nothing but the safetensors library and numpy."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ckptdiff.formats.layouts import layout_of
from ckptdiff.quant.arrays import STORED, Scales, as_array
from ckptdiff.records.checkpoint import Tensor
from ckptdiff.records.layout import LayoutName, Scale, Suffix

SCALES: tuple[Suffix, ...] = ("weight_scale", "weight_scale_2", "pre_quant_scale")


@dataclass(frozen=True)
class Linear:
    """One quantized linear of an export and the weight it was made from."""

    name: str
    layout: LayoutName
    codes: np.ndarray
    scales: Scales
    base: np.ndarray


@cache
def tensors(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    """(dtype, array) of every tensor by name."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__" and entry["dtype"] in STORED:
                begin, end = entry["data_offsets"]
                part = data[start + begin : start + end]
                found[name] = entry["dtype"], as_array(part, entry["dtype"], tuple(entry["shape"]))
    return found


def linears(scheme: Path, base: Path) -> list[Linear]:
    """Every quantized linear of a scheme."""
    stored, originals = tensors(scheme), tensors(base)
    found = []
    for name, (dtype, codes) in stored.items():
        module = name.removesuffix(".weight")
        if module == name or f"{module}.weight_scale" not in stored:
            continue
        beside = {s: stored[f"{module}.{s}"] for s in SCALES if f"{module}.{s}" in stored}
        layout = layout_of(
            Tensor(dtype, codes.shape, (0, 0)),
            {
                s: Scale("", module, s, Tensor(kind, array.shape, (0, 0)), "")
                for s, (kind, array) in beside.items()
            },
        )
        # One block: it looks like one scale a tensor as well.
        one = "fp8-block" if "pb_wo" in str(scheme) else layout.names[0]
        arrays = {s: array for s, (_, array) in beside.items()}
        scales = Scales(*(arrays.get(s) for s in SCALES))  # type: ignore[arg-type]
        found.append(Linear(module, one, codes, scales, originals[name][1]))
    return found


def fused(linear: Linear) -> str:
    """What the linears that share an input have in common."""
    parent, _, leaf = linear.name.rpartition(".")
    kind = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gu", "up_proj": "gu"}
    return f"{parent}.{kind.get(leaf, leaf)}"
