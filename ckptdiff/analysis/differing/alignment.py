"""Which tensor of one checkpoint stands for the same as which of another, by name and shape.

Two checkpoints may spell a name differently, hold a weight plain or packed with scales beside
it, and hold experts one by one or all in one tensor. Whether the values are the same is found
out elsewhere: nothing is read here, and no digest decides what is compared with what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from ckptdiff.analysis.against_base import algorithms_of
from ckptdiff.analysis.coverage import QUANTIZED_BITS
from ckptdiff.analysis.differing.pairs import Fold, Gain, Operand, Pair
from ckptdiff.analysis.experts import split
from ckptdiff.analysis.packings import Packing, Packings
from ckptdiff.formats.names import bare, norms_before
from ckptdiff.quant.registry import CODINGS
from ckptdiff.records.checkpoint import Tensor
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence

# What belongs to a module and not to its quantized weight.
_OWN = ("weight", "bias", "k_scale", "v_scale")
_LINEAR = re.compile(r"^(.*)\.(self_attn|mlp)\.(\w+)\.weight$")
_LINKED = (("up_proj", "down_proj"), ("v_proj", "o_proj"))
_PACKED_ZEROS = (".qzeros", ".weight_zero_point")
_UNKNOWN_SCALES = "how its scales belong to it is not known"
_ZEROS = "packed zero points are compared together with their weight"


def align(
    a: SchemeEvidence, b: SchemeEvidence, packings: tuple[Packings, Packings] = ({}, {})
) -> tuple[Pair, ...]:
    """Every tensor of either checkpoint in exactly one pair, in A's order, then B's.

    Scales that belong to a weight which only one side has packed, or packs in that way, are
    part of that weight and in no pair of their own. `packings` are the weights that other
    exporters than ModelOpt packed, of A and of B.
    """
    short = _short_keys_differ(a, b)
    operands_a, operands_b = (
        _operands(side, short, packed) for side, packed in zip((a, b), packings, strict=True)
    )
    of_a = {**operands_a, **_split(operands_a, operands_b)}
    of_b = {**operands_b, **_split(operands_b, operands_a)}
    for fused in _fused_in(operands_a, of_a):
        del of_a[fused]
    for fused in _fused_in(operands_b, of_b):
        del of_b[fused]
    weights_a, weights_b = _modules(a, short), _modules(b, short)
    algorithms = algorithms_of(a), algorithms_of(b)
    folds = any("AWQ" in name for names in algorithms for name in names) or "awq" in (
        a.foreign,
        b.foreign,
    )
    gains = ["NVFP4_AWQ" in names for names in algorithms]
    pairs = []
    for key in dict.fromkeys((*of_a, *of_b)):
        one, other = of_a.get(key), of_b.get(key)
        module, _, leaf = key.rpartition(".")
        companion = leaf not in _OWN and (module in weights_a or module in weights_b)
        if companion and not _same_packing(of_a, of_b, module) and not _stray(of_a, of_b, key):
            one = None if module in weights_a else one
            other = None if module in weights_b else other
        if one is None and other is None:
            continue
        fold = _fold(key, of_a, of_b) if folds else None
        # B's gains are told by A's plain weights; two searched exports tell nothing.
        gain = _gain(key, of_a, of_b) if gains == [False, True] else None
        scale = companion or leaf in ("k_scale", "v_scale")
        pairs.append(Pair(key, one, other, fold, gain, scale))
    return tuple(pairs)


def layer_of(key: str) -> str | None:
    """The layer that a tensor belongs to, such as "layers.3" or "visual.blocks.0".

    >>> layer_of("visual.blocks.0.attn.qkv.weight")
    'visual.blocks.0'
    """
    match = _LAYER.match(key)
    return match[1] if match else None


def kind_of(key: str) -> str:
    """The kind of module that a tensor belongs to, the same in all layers and experts.

    >>> kind_of("layers.3.mlp.experts.17.down_proj.weight")
    'experts.down_proj'
    >>> kind_of("visual.merger.mlp.0.bias")
    'mlp.0'
    """
    names = key.split(".")[:-1] or [key]
    if len(names) > 2 and names[-2].isdecimal() and names[-3] == "experts":
        return f"experts.{names[-1]}"
    return ".".join(names[-2:]) if names[-1].isdecimal() else names[-1]


_LAYER = re.compile(r"^((?:.*?\.)?(?:layers|blocks|h)\.\d+)\.")


def _short_keys_differ(a: SchemeEvidence, b: SchemeEvidence) -> bool:
    """Whether no two tensors of one side have the same short key; else full names are compared."""
    for side in (a, b):
        names = {name for name, _, _ in side.checkpoint.items()}
        if len({bare(name) for name in names}) < len(names):
            return False
    return True


def _key(name: str, short: bool) -> str:
    return bare(name) if short else name


def _modules(scheme: SchemeEvidence, short: bool) -> dict[str, Module]:
    """The quantized modules, by key."""
    found = scheme.coverage.modules.values()
    return {_key(module.name, short): module for module in found if module.quantized}


def _operands(scheme: SchemeEvidence, short: bool, packings: Packings) -> dict[str, Operand]:
    """key -> every tensor of a checkpoint; the packed weights of other exporters have the key
    that a plain weight would have, and each of the experts that one of them holds its own."""
    weights = {m.weight: (key, m) for key, m in scheme.coverage.modules.items() if m.quantized}
    inside = {
        name
        for packed in packings.values()
        for packing in (() if isinstance(packed, str) else packed)
        if packing.expert is not None
        for name, _ in packing.beside.values()
    }
    found = {}
    for name, tensor, shard in scheme.checkpoint.items():
        packed = packings.get(name, ())
        if isinstance(packed, str) and name in weights:
            key = f"{_key(weights[name][1].name, short)}.weight"
            found[key] = _obstructed(weights[name][1], tensor, shard.name, packed)
        elif packed and not isinstance(packed, str):
            for packing in packed:
                found[f"{_key(packing.module, short)}.weight"] = _foreign(
                    packing, tensor, shard.name
                )
        elif name in inside:
            continue
        elif name in weights:
            of_layout, module = weights[name]
            key = f"{_key(module.name, short)}.weight"
            found[key] = _packed(scheme, of_layout, module, tensor, shard.name)
        else:
            why = _ZEROS if tensor.dtype == "I32" and name.endswith(_PACKED_ZEROS) else ""
            found[_key(name, short)] = Operand(name, tensor, shard.name, tensor.shape, obstacle=why)
    return found


def _obstructed(module: Module, tensor: Tensor, shard: str, why: str) -> Operand:
    """A quantized weight whose values cannot be had."""
    return Operand(module.weight, tensor, shard, tensor.shape, module=module.name, obstacle=why)


def _foreign(packing: Packing, tensor: Tensor, shard: str) -> Operand:
    return Operand(
        packing.name,
        tensor,
        shard,
        packing.shape,
        module=packing.module,
        packing=packing,
    )


def _packed(
    scheme: SchemeEvidence, key: str, module: Module, tensor: Tensor, shard: str
) -> Operand:
    layout = scheme.layouts.get(key)
    if layout is None or (scheme.foreign and not layout.names):
        method = scheme.foreign or "another exporter"
        why = f"its packing ({method}) is not known"
        return _obstructed(module, tensor, shard, why)
    if not layout.names or layout.missing:
        why = f"there is no {layout.missing[0]}" if layout.missing else "its scale does not fit it"
        return _obstructed(module, tensor, shard, why)
    coding = CODINGS[layout.names[0]]
    rows, columns = tensor.shape
    shape = (rows * coding.rows, columns * coding.columns)
    smoothed = "pre_quant_scale" in scheme.scales.get(module.name, {})
    name = layout.names[0]
    return Operand(module.weight, tensor, shard, shape, name, module.name, smoothed=smoothed)


def _same_packing(of_a: Mapping[str, Operand], of_b: Mapping[str, Operand], module: str) -> bool:
    """Whether both sides pack a weight alike, so that its scales can be compared."""
    one, other = of_a.get(f"{module}.weight"), of_b.get(f"{module}.weight")
    if one is None or other is None or not (one.module and other.module):
        return False
    return one.tensor.dtype == other.tensor.dtype and (
        one.coding == other.coding or one.coding is None or other.coding is None
    )


def _stray(of_a: Mapping[str, Operand], of_b: Mapping[str, Operand], key: str) -> bool:
    """Whether both have a scale whose weight one of them lacks: it may have been lost."""
    weight = f"{key.rpartition('.')[0]}.weight"
    return key in of_a and key in of_b and not (weight in of_a and weight in of_b)


def _split(fused: Mapping[str, Operand], single: Mapping[str, Operand]) -> dict[str, Operand]:
    """The experts that `fused` has in one tensor where `single` has them one by one."""
    parts = split(
        {key: (operand.name, operand.tensor) for key, operand in fused.items()},
        ((key, (operand.shape,)) for key, operand in single.items()),
        guess=True,
    )
    homes = {operand.name: operand.shard for operand in fused.values()}
    return {
        key: Operand(
            name,
            part,
            homes[name],
            part.shape,
            obstacle=_UNKNOWN_SCALES if part.dtype in QUANTIZED_BITS else "",
        )
        for key, (name, part) in parts.items()
    }


def _fused_in(before: Mapping[str, Operand], after: Mapping[str, Operand]) -> list[str]:
    """Keys of fused tensors that have been split."""
    split = {operand.name for operand in after.values() if operand.part is not None}
    return [key for key, operand in before.items() if operand.name in split]


def _fold(key: str, of_a: Mapping[str, Operand], of_b: Mapping[str, Operand]) -> Fold | None:
    """The norm in front of a linear of which at least one side has four bits."""
    a, b = of_a.get(key), of_b.get(key)
    known = norms_before(key.removesuffix(".weight")) or ()
    name = next((name for norm in known if (name := f"{norm}.weight") in of_a), None)
    if a is None or b is None or name is None:
        return None
    if not any((side.format or "").startswith(("int4", "nvfp4", "awq")) for side in (a, b)):
        return None
    norms = of_a.get(name), of_b.get(name)
    if norms[0] is None or norms[1] is None or len(a.shape) != 2:
        return None
    if not norms[0].shape == norms[1].shape == a.shape[1:]:
        return None
    return Fold(name, norms[0], norms[1])


def _gain(key: str, of_a: Mapping[str, Operand], of_b: Mapping[str, Operand]) -> Gain | None:
    """The first linear of a pair that NVFP4_AWQ links, for either of the two."""
    match = _LINEAR.match(key)
    for first, second in _LINKED:
        if match is None or match[3] not in (first, second):
            continue
        up, down = (f"{match[1]}.{match[2]}.{leaf}.weight" for leaf in (first, second))
        ups, downs = (of_a.get(up), of_b.get(up)), (of_a.get(down), of_b.get(down))
        if None in ups or None in downs:
            return None
        assert ups[0] and ups[1] and downs[0] and downs[1]
        plain = not ups[0].layout and not downs[0].layout and not downs[1].smoothed
        fits = ups[0].shape == ups[1].shape and downs[0].shape == downs[1].shape
        if not (plain and fits and (downs[1].layout or "").startswith("nvfp4")):
            return None
        if ups[0].shape[0] != downs[0].shape[-1]:  # grouped heads are not linked
            return None
        along: Literal["rows", "columns"] = "rows" if match[3] == first else "columns"
        return Gain(ups[0], ups[1], _fold(up, of_a, of_b), along)
    return None
