"""The formats that ModelOpt writes, told apart by dtypes and shapes alone.

An algorithm in a config is a claim; which layout a module has is read off its tensors. The
shapes are those of ModelOpt 0.47's unified export, [O, I] being the unpacked weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ckptdiff.records.checkpoint import Tensor
from ckptdiff.records.layout import SUFFIXES, Layout, LayoutName, Misfit, Scale, Suffix

FP8_BLOCK = 128
MX_BLOCK = 32

MIXED = "MIXED_PRECISION"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What an algorithm's name in a config stands for: the layout of every module, the scales
    that each has beside weight_scale, and those that it may have."""

    layout: LayoutName
    scales: tuple[Suffix, ...] = ()
    optional: tuple[Suffix, ...] = ()


# Spelled as in configs, compared without regard to case.
ALGORITHMS = {
    "FP8": Algorithm("fp8", ("input_scale",)),
    "FP8_PER_CHANNEL_PER_TOKEN": Algorithm("fp8-channel"),
    "FP8_PB_WO": Algorithm("fp8-block"),
    "W8A8_SQ_PER_CHANNEL": Algorithm("int8", ("input_scale",), ("pre_quant_scale",)),
    "W8A16": Algorithm("int8"),
    "W4A16_AWQ": Algorithm("int4", (), ("pre_quant_scale",)),
    "W4A8_AWQ": Algorithm("int4-fp8", ("weight_scale_2", "input_scale"), ("pre_quant_scale",)),
    "NVFP4": Algorithm("nvfp4", ("weight_scale_2", "input_scale")),
    "NVFP4_AWQ": Algorithm("nvfp4", ("weight_scale_2", "input_scale"), ("pre_quant_scale",)),
    "W4A16_NVFP4": Algorithm("nvfp4", ("weight_scale_2",)),
    "W4A8_NVFP4_FP8": Algorithm("nvfp4-32", ("weight_scale_2", "input_scale")),
    "MXFP8": Algorithm("mxfp8"),
    "MXFP4": Algorithm("mxfp4"),
    "W4A8_MXFP4_FP8": Algorithm("mxfp4"),
}


def scale_suffix(tensor_name: str) -> tuple[str, Suffix] | None:
    """(module, suffix) of a scale's tensor name, None for any other tensor."""
    module, _, leaf = tensor_name.rpartition(".")
    for suffix in SUFFIXES:
        if leaf == suffix and module:
            return module, suffix
    return None


def layout_of(weight: Tensor, scales: Mapping[Suffix, Scale]) -> Layout:
    """What a quantized weight and its scales are, by dtype and shape.

    A scale that is not there is named in `missing`, one that goes with no layout of the
    weight in `misfits`; then `names` are the layouts that the rest allows.
    """
    scale = scales.get("weight_scale")
    misfits = [found for s in scales.values() if (found := _odd_companion(s, weight))]
    if scale is None:
        return Layout(_by_weight(weight), ("weight_scale",), tuple(misfits))
    names = tuple(name for name, shapes in _candidates(weight, scale.tensor) if shapes)
    if not names:
        misfits.append(_odd_scale(weight, scale))
        return Layout((), (), tuple(misfits))
    missing: tuple[Suffix, ...] = ()
    if names[0].startswith("nvfp4") and "weight_scale_2" not in scales:
        missing = ("weight_scale_2",)
    if names == ("int4",):
        # Without weight_scale_2 it may be that the scale is missing.
        names = ("int4-fp8",) if "weight_scale_2" in scales else ("int4", "int4-fp8")
    return Layout(names, missing, tuple(misfits))


def _by_weight(weight: Tensor) -> tuple[LayoutName, ...]:
    return {"I8": ("int8",)}.get(weight.dtype, ())  # type: ignore[return-value]


def _candidates(weight: Tensor, scale: Tensor) -> list[tuple[LayoutName, bool]]:
    """(layout, whether the shapes fit) for the dtypes of this weight and scale."""
    if len(weight.shape) != 2:
        return []
    rows, columns = weight.shape
    shape = scale.shape
    match weight.dtype, scale.dtype:
        case "F8_E4M3", "F32":
            return [
                ("fp8", shape in ((), (1,))),
                ("fp8-channel", shape in ((rows,), (rows, 1)) and bool(shape)),
                ("fp8-block", _is_block(shape, rows, columns)),
            ]
        case "F8_E4M3", "U8":
            return [("mxfp8", shape == (rows, _blocks(columns, MX_BLOCK)))]
        case "I8", "F32":
            return [("int8", shape in ((rows,), (rows, 1)))]
        case "U8", "F32":  # INT4, two rows a byte
            fits = len(shape) == 2 and shape[0] == 2 * rows and _divides(shape[1], columns)
            return [("int4", fits)]
        case "U8", "F8_E4M3":  # FP4, two columns a byte
            return [
                ("nvfp4", shape == (rows, _blocks(2 * columns, 16))),
                ("nvfp4-32", shape == (rows, _blocks(2 * columns, 32))),
            ]
        case "U8", "U8":
            return [("mxfp4", shape == (rows, _blocks(2 * columns, MX_BLOCK)))]
    return []


def _is_block(shape: tuple[int, ...], rows: int, columns: int) -> bool:
    """[O/128, 1, I/128, 1] with partial blocks at the edges; one block may be a scalar."""
    wanted = (_blocks(rows, FP8_BLOCK), 1, _blocks(columns, FP8_BLOCK), 1)
    if math.prod(wanted) == 1:
        return math.prod(shape) == 1 if shape else True
    return shape == wanted


def _blocks(length: int, block: int) -> int:
    return -(-length // block)


def _divides(part: int, whole: int) -> bool:
    return part > 0 and whole % part == 0


def _odd_scale(weight: Tensor, scale: Scale) -> Misfit:
    wanted = _wanted(weight)
    return Misfit(scale, wanted, _spell(scale.tensor))


def _wanted(weight: Tensor) -> str:
    """The weight_scale that goes with a weight, in words."""
    if len(weight.shape) != 2:
        return "a weight of two dimensions"
    rows, columns = weight.shape
    fp4 = f"F8_E4M3 or U8 [{rows}, blocks of {2 * columns}]"
    return {
        "F8_E4M3": f"F32 [], F32 [{rows}], F32 of 128x128 blocks, or U8 [{rows}, blocks of 32]",
        "I8": f"F32 [{rows}]",
        "U8": f"F32 [{2 * rows}, groups of {columns}], or {fp4}",
    }.get(weight.dtype, "no scale of a kind that is known")


def _odd_companion(scale: Scale, weight: Tensor) -> Misfit | None:
    """A scale other than weight_scale with another dtype or shape than it always has."""
    tensor = scale.tensor
    match scale.suffix:
        case "weight_scale":
            return None
        case "pre_quant_scale":
            # In the dtype of the model it was exported from; one value for each input.
            inputs = _inputs(weight)
            if tensor.dtype in ("BF16", "F16", "F32") and math.prod(tensor.shape) in inputs:
                return None
            lengths = " or ".join(f"[{length}]" for length in inputs)
            return Misfit(scale, f"BF16, F16 or F32 {lengths}", _spell(tensor))
        case _:
            if tensor.dtype == "F32" and tensor.shape in ((), (1,)):
                return None
            return Misfit(scale, "F32 []", _spell(tensor))


def _inputs(weight: Tensor) -> tuple[int, ...]:
    """What I of the unpacked weight may be: a U8 holds two columns (FP4) or two rows (INT4)."""
    columns = weight.shape[-1] if weight.shape else 0
    return (columns, 2 * columns) if weight.dtype == "U8" else (columns,)


def _spell(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def packed_as(
    layout: LayoutName, rows: int, columns: int
) -> tuple[tuple[str, tuple[int, ...]], dict[Suffix, tuple[str, tuple[int, ...]]]]:
    """(dtype, shape) of a weight [O, I] in a layout, and of the weight scales beside it.

    Raises `ValueError` for AWQ's layouts, whose scales no shape determines.
    """
    grid = (_blocks(rows, FP8_BLOCK), 1, _blocks(columns, FP8_BLOCK), 1)
    halved = ("U8", (rows, columns // 2))
    match layout:
        case "fp8":
            return ("F8_E4M3", (rows, columns)), {"weight_scale": ("F32", ())}
        case "fp8-channel":
            return ("F8_E4M3", (rows, columns)), {"weight_scale": ("F32", (rows,))}
        case "fp8-block":
            shape = grid if math.prod(grid) > 1 else ()
            return ("F8_E4M3", (rows, columns)), {"weight_scale": ("F32", shape)}
        case "int8":
            return ("I8", (rows, columns)), {"weight_scale": ("F32", (rows,))}
        case "mxfp8":
            scale = (rows, _blocks(columns, MX_BLOCK))
            return ("F8_E4M3", (rows, columns)), {"weight_scale": ("U8", scale)}
        case "mxfp4":
            return halved, {"weight_scale": ("U8", (rows, _blocks(columns, MX_BLOCK)))}
        case "nvfp4" | "nvfp4-32":
            scale = (rows, _blocks(columns, 16 if layout == "nvfp4" else 32))
            return halved, {"weight_scale": ("F8_E4M3", scale), "weight_scale_2": ("F32", ())}
    raise ValueError(f"the scales of {layout} are searched for")
