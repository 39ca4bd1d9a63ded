"""How one quantized module is laid out on disk: its format, as dtypes and shapes show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ckptdiff.records.checkpoint import Tensor

Suffix = Literal[
    "weight_scale",
    "weight_scale_2",
    "input_scale",
    "pre_quant_scale",
    "k_scale",
    "v_scale",
]
SUFFIXES: tuple[Suffix, ...] = get_args(Suffix)

LayoutName = Literal[
    "fp8", "fp8-channel", "fp8-block", "int8", "int4", "int4-fp8", "nvfp4", "nvfp4-32", "mxfp8",
    "mxfp4",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """A tensor that belongs to a module's quantization: `<module>.<suffix>`."""

    name: str
    module: str
    suffix: Suffix
    tensor: Tensor
    shard: str


@dataclass(frozen=True, slots=True)
class Misfit:
    """A scale whose dtype or shape goes with no format of its weight."""

    scale: Scale
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The layouts that a module's tensors allow, and what contradicts all of them.

    `names` is empty when the weight is of a kind that ModelOpt does not write. A weight of
    one 128x128 block has a scalar scale, so it fits both "fp8" and "fp8-block".
    """

    names: tuple[LayoutName, ...]
    missing: tuple[Suffix, ...] = ()
    misfits: tuple[Misfit, ...] = ()
