"""Weights that other exporters than ModelOpt packed, and how: llm-compressor's, GPTQ's, AutoAWQ's,
the FP8 of DeepSeek and Qwen, the MXFP4 of GPT-OSS.

Which format a weight has is read off its tensors; the config supplies only what no tensor shows.
Its values are `unpacking`'s. What a weight is compared with, or loaded into, is decided elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.formats.configs import CONFIG_NAME
from ckptdiff.formats.documents import read_object
from ckptdiff.formats.names import weight_module
from ckptdiff.quant import awq, fp8
from ckptdiff.quant.arrays import Array, MisfitError
from ckptdiff.records.checkpoint import Defect, Shard, Tensor, Unread
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.sources.local import Unreadable

METHODS = ("compressed-tensors", "gptq", "awq", "fp8", "mxfp4")
# What lies beside a weight and takes part in its values, by the end of its name.
BESIDE = (
    "weight_scale", "weight_scale_inv", "weight_zero_point", "weight_shape", "weight_g_idx",
    "weight_global_scale", "scales", "qzeros", "g_idx",
)  # fmt: skip
_BLOCKS, _SCALES = "_blocks", "_scales"
_MOST_BITS = 8
_MOST_EXPERTS = 1 << 14  # of one layer; more are a header's joke

Format = Literal[
    "float-quantized", "int-quantized", "pack-quantized", "nvfp4-pack-quantized", "fp8-scale-inv",
    "gptq", "awq", "gpt-oss",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Packing:
    """A quantized weight `name` of `shape` [O, I], unpacked, and the (name, shard) of what lies
    beside it.

    `bits`, `block` and `v2` are what its config says where no tensor does: bits of a code, the
    side of an FP8 block, GPTQ's way to store zero points. `expert` is which of the experts is
    meant that one tensor holds; `grain` how many rows are unpacked together at least.
    """

    format: Format
    name: str
    module: str
    shard: Shard
    shape: tuple[int, int]
    beside: Mapping[str, tuple[str, Shard]]
    bits: int = 8
    block: int | None = None
    v2: bool = False
    expert: int | None = None
    grain: int = 1

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal where equal bytes mean equal values, given equal tensors beside them."""
        return self.format, self.bits, self.block, self.v2, self.expert

    def read(self, reader: TensorReader, suffix: str) -> Array:
        """A whole tensor beside the weight."""
        name, shard = self.beside[suffix]
        return reader.array(shard, name)

    def optional(self, reader: TensorReader, suffix: str) -> Array | None:
        return self.read(reader, suffix) if suffix in self.beside else None


# Packed weights by tensor name, or why one cannot be unpacked; several where a tensor holds
# experts.
Packings = Mapping[str, tuple[Packing, ...] | str]


def packings_of(scheme: SchemeEvidence) -> Packings:
    """The packed weights of a checkpoint; none where ModelOpt or nobody known has packed them.

    Reads config.json, and `weight_shape` where there is one.
    """
    if scheme.foreign not in METHODS:
        return {}
    config = _config(scheme.checkpoint.path)
    tensors = {name: (tensor, shard) for name, tensor, shard in scheme.checkpoint.items()}
    quantized = {m.weight for m in scheme.coverage.modules.values() if m.quantized}
    found: dict[str, tuple[Packing, ...] | str] = {}
    with TensorReader() as reader:
        for name, (tensor, shard) in tensors.items():
            try:
                if name.endswith(_BLOCKS):
                    found[name] = tuple(_experts(name, tensor, shard, tensors))
                elif name in quantized:
                    packing = _packing(scheme, config, name, tensor, shard, tensors, reader)
                    found[name] = (packing,)
            except Unreadable as error:
                found[name] = error.reason
            except MisfitError as error:
                found[name] = str(error)
    return found


def _config(path: str) -> Mapping[str, Any]:
    document = read_object(Path(path), CONFIG_NAME)
    if isinstance(document, Defect | Unread):
        return {}
    config = document.get("quantization_config")
    return config if isinstance(config, dict) else {}


def _packing(
    scheme: SchemeEvidence,
    config: Mapping[str, Any],
    name: str,
    tensor: Tensor,
    shard: Shard,
    tensors: Mapping[str, tuple[Tensor, Shard]],
    reader: TensorReader,
) -> Packing:
    """Raises `MisfitError` for what is not understood."""
    module = weight_module(name) or ""
    beside = {
        suffix: (beside, tensors[beside][1])
        for suffix in BESIDE
        if (beside := f"{module}.{suffix}") in tensors
    }
    if len(tensor.shape) != 2:
        raise MisfitError("is quantized and no matrix")
    rows, columns = tensor.shape
    made = partial(Packing, name=name, module=module, shard=shard, beside=beside)
    if name.endswith(".qweight"):
        return _transposed(scheme, config, made, (rows, columns))
    if "weight_scale_inv" in beside:
        block = _side(config.get("weight_block_size")) or fp8.BLOCK
        return made("fp8-scale-inv", shape=(rows, columns), block=block)
    if "weight_scale" not in beside:
        raise MisfitError("is quantized and comes without weight_scale")
    scale = tensors[beside["weight_scale"][0]][0]
    if scale.dtype == "U8" and "weight_global_scale" not in beside:
        raise MisfitError("has scales that are powers of two, a format that is not known here")
    arguments = _group(module, config).get("weights")
    arguments = arguments if isinstance(arguments, dict) else {}
    match tensor.dtype:
        case "F8_E4M3":
            block_side = _side(arguments.get("block_structure"))
            return made("float-quantized", shape=(rows, columns), block=block_side)
        case "I8":
            return made("int-quantized", shape=(rows, columns))
        case "I32":
            bits = _bits(arguments.get("num_bits"))
            columns = _columns(beside, reader, (rows, columns), bits)
            return made("pack-quantized", shape=(rows, columns), bits=bits)
        case "U8" if "weight_global_scale" in beside:
            return made("nvfp4-pack-quantized", shape=(rows, 2 * columns), bits=4)
    raise MisfitError(f"is {tensor.dtype} in a format that is not known")


def _columns(
    beside: Mapping[str, tuple[str, Shard]], reader: TensorReader, shape: tuple[int, int], bits: int
) -> int:
    """Columns of a matrix of so many rows and words: the last word may not be full."""
    rows, words = shape
    most = words * 32 // bits
    if "weight_shape" not in beside:
        return most
    name, shard = beside["weight_shape"]
    if math.prod(shard.tensors[name].shape) != 2:
        raise MisfitError("has a weight_shape of other than two lengths")
    said = reader.array(shard, name).reshape(-1).tolist()
    if said[0] != rows or not 0 <= said[1] <= most:
        raise MisfitError(f"has a weight_shape of {said}, which does not fit it")
    if words != -(-said[1] * bits // 32):  # as compressed-tensors 0.10 had them
        raise MisfitError(f"has words that are not full of {bits}-bit codes, an older packing")
    return int(said[1])


def _transposed(
    scheme: SchemeEvidence,
    config: Mapping[str, Any],
    made: Callable[..., Packing],
    shape: tuple[int, int],
) -> Packing:
    """GPTQ and AutoAWQ: the matrix lies transposed, outputs are columns."""
    rows, columns = shape
    bits = _bits(config.get("bits") or config.get("w_bit"))
    if scheme.foreign == "awq":
        if bits != 4 or str(config.get("version", "gemm")).lower() != "gemm":
            raise MisfitError("is packed by AWQ in another way than GEMM with 4 bits")
        unpacked = (columns * awq.PER_WORD, rows)
        packing = made("awq", shape=unpacked, bits=bits, grain=awq.PER_WORD)
    else:
        v2 = config.get("checkpoint_format") == "gptq_v2"
        packing = made("gptq", shape=(columns, rows * 32 // bits), bits=bits, v2=v2)
        if "g_idx" in packing.beside:  # the last words of a matrix may not be full
            name, its_shard = packing.beside["g_idx"]
            packing = replace(packing, shape=(columns, math.prod(its_shard.tensors[name].shape)))
    if not {"scales", "qzeros"} <= packing.beside.keys():
        raise MisfitError("comes without scales and qzeros")
    for suffix in ("scales", "qzeros"):
        name, shard = packing.beside[suffix]
        if len(shard.tensors[name].shape) != 2:
            raise MisfitError(f"has {suffix} that are no matrix")
    return packing


def _experts(
    name: str, tensor: Tensor, shard: Shard, tensors: Mapping[str, tuple[Tensor, Shard]]
) -> Iterator[Packing]:
    """GPT-OSS: all experts in one tensor [experts, O, G, 16]."""
    stem = name.removesuffix(_BLOCKS)
    beside = f"{stem}{_SCALES}"
    if beside not in tensors or len(tensor.shape) != 4:
        raise MisfitError("comes without its scales, or not as blocks of experts")
    if tensors[beside][0].shape != tensor.shape[:3]:
        raise MisfitError(f"has scales of {list(tensors[beside][0].shape)}, which do not fit it")
    if tensor.dtype != "U8" or tensors[beside][0].dtype != "U8":
        raise MisfitError(f"is {tensor.dtype} in a format that is not known")
    owner, _, leaf = stem.rpartition(".")
    count, outputs, groups, width = tensor.shape
    if not tensor.nbytes or count > _MOST_EXPERTS:
        raise MisfitError(f"has {count:,} experts in {tensor.nbytes:,} bytes")
    for expert in range(count):
        yield Packing(
            "gpt-oss",
            name,
            f"{owner}.{expert}.{leaf}",
            shard,
            (outputs, 2 * groups * width),
            {"scales": (beside, tensors[beside][1])},
            bits=4,
            expert=expert,
        )


def _bits(said: object) -> int:
    """The width of a code, 4 where nothing is said."""
    if said is None:
        return 4
    if not isinstance(said, int) or isinstance(said, bool) or not 1 <= said <= _MOST_BITS:
        raise MisfitError(f"has codes of {str(said)[:20]} bits")
    return said


def _side(said: object) -> int | None:
    """The side of square blocks, None where nothing is said."""
    if not isinstance(said, list) or not said:
        return None
    if any(not isinstance(length, int) or length < 1 for length in said) or len(set(said)) > 1:
        raise MisfitError(f"has blocks of {str(said)[:40]}")
    return int(said[0])


def _group(module: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config group of compressed-tensors that a module belongs to."""
    groups = config.get("config_groups")
    given = [g for g in (groups.values() if isinstance(groups, dict) else ()) if _is_group(g)]
    for group in given:
        for target in group["targets"]:
            pattern = str(target).removeprefix("re:")
            if target == module or (target != pattern and _matches(pattern, module)):
                found: Mapping[str, Any] = group
                return found
    return next((group for group in given if "Linear" in group["targets"]), {})


def _is_group(group: object) -> bool:
    return isinstance(group, dict) and isinstance(group.get("targets"), list)


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.match(pattern, module) is not None
    except re.error:
        return False
