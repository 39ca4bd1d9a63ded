"""Compares a scheme with the base it was made from, by digests.

What is not quantized must be base's, cast to the dtype in which it is stored. Nothing is
read here: whoever hashes also supplies the digests of base tensors in other dtypes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from ckptdiff.analysis.quantization import is_tied_head, known_algorithm
from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.formats.names import expert_layer, experts_of, keys_of, norms_before
from ckptdiff.records.against_base import AgainstBase, Pair
from ckptdiff.records.checkpoint import Checkpoint, Tensor
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence

# (name of a base tensor, dtype) -> digest of its values cast to that dtype.
Casts = Mapping[tuple[str, str], bytes]

FLOATS = frozenset(("BF16", "F16", "F32", "F64"))
# Heads for multi-token prediction and buffers: base has them, exports do not.
_NEVER_EXPORTED = re.compile(r"(^|\.)(mtp|nextn)[._]|(^|\.)(inv_freq|rotary_emb\.\w+)$")
_LAYER = re.compile(r"^layers\.(\d{1,9})\.")
# Whose rows may get the factors of the columns of the next one.
_LINEARS_BEFORE = {"down_proj": "up_proj", "o_proj": "v_proj"}
_BLOCK = re.compile(r"^.*?\.\d+(?=\.)")


def compare(scheme: SchemeEvidence, base: SchemeEvidence, casts: Casts) -> AgainstBase:
    """Every tensor of the scheme beside the base's of the same key.

    Tensors whose digests are not known (nothing was hashed, a shard could not be read) are
    in `unknown`.
    """
    found: dict[str, list[Pair]] = {field: [] for field in AgainstBase.__dataclass_fields__}
    for kind, pair in _classified(scheme, base, casts):
        found[kind].append(pair)
    return AgainstBase(**{field: tuple(pairs) for field, pairs in found.items()})


def casts_wanted(scheme: SchemeEvidence, base: SchemeEvidence) -> set[tuple[str, str]]:
    """(name of a base tensor, dtype) of every unquantized tensor stored in another dtype."""
    wanted = set()
    of_base = base.tensors
    weights = {m.weight for m in scheme.coverage.modules.values() if m.quantized}
    for key, (name, tensor, _) in scheme.tensors.items():
        if key in of_base and name not in weights and not scale_suffix(name):
            base_name, other, _ = of_base[key]
            floats = {tensor.dtype, other.dtype} <= FLOATS
            if floats and tensor.dtype != other.dtype and tensor.shape == other.shape:
                wanted.add((base_name, tensor.dtype))
    return wanted


def _classified(
    scheme: SchemeEvidence, base: SchemeEvidence, casts: Casts
) -> Iterator[tuple[str, Pair]]:
    of_base, of_scheme = base.tensors, scheme.tensors
    modules = {module.name: module for module in scheme.coverage.modules.values()}
    folded, apart = _folded(scheme, base), layers_apart(scheme, base)
    for key, (name, tensor, shard) in of_scheme.items():
        owner = modules.get(name.rpartition(".")[0])
        base_name, other, _ = of_base.get(key, (None, None, ""))
        pair = Pair(name, shard, tensor, other)
        if apart and experts_of(key) in apart:
            yield "apart", pair
        elif owner and owner.quantized and name == owner.weight:
            yield from _packed(scheme, owner, pair)
        elif scale_suffix(name):
            continue
        elif owner and owner.quantized and scheme.foreign and other is None:
            continue  # other exporters have zero points and orders beside their weights
        elif other is None or base_name is None:
            if not (owner and is_tied_head(scheme, owner)):
                yield "extra", pair
        elif tensor.shape != other.shape:
            yield "shapes", pair
        elif key.rpartition(".")[0] in folded:
            yield "folded", pair
        else:
            yield from _compared(scheme, base, pair, base_name, casts)
    if scheme.coverage.complete:
        yield from _missing(scheme, base, of_scheme.keys(), apart)


def layers_apart(scheme: SchemeEvidence, base: SchemeEvidence) -> Collection[str]:
    """What holds the experts of a layer, where one of the two has them one by one and the other
    has tensors of them all, which did not show how they go together."""
    sides = (scheme, base)
    stacked = [
        {
            layer
            for key, (_, tensor, _) in side.tensors.items()
            if len(tensor.shape) > 2 and (layer := experts_of(key))
        }
        for side in sides
    ]
    if not any(stacked):
        return frozenset()
    single = [{layer for key in side.tensors if (layer := expert_layer(key))} for side in sides]
    return (stacked[0] & single[1] - single[0]) | (stacked[1] & single[0] - single[1])


def _compared(
    scheme: SchemeEvidence, base: SchemeEvidence, pair: Pair, base_name: str, casts: Casts
) -> Iterator[tuple[str, Pair]]:
    assert pair.tensor is not None and pair.base is not None
    mine, theirs = scheme.digests.get(pair.name), base.digests.get(base_name)
    same_dtype = pair.tensor.dtype == pair.base.dtype
    if not same_dtype:
        theirs = casts.get((base_name, pair.tensor.dtype))
    if mine is None or theirs is None:
        yield "unknown", pair
    elif mine != theirs:
        # NaN and infinities that base does not have are CK205's.
        broken = pair.name in scheme.flaws and base_name not in base.flaws
        yield "unknown" if broken else "differs", pair
    elif not same_dtype:
        yield "other_dtype", pair


def _missing(
    scheme: SchemeEvidence, base: SchemeEvidence, have: Iterable[str], apart: Collection[str]
) -> Iterator[tuple[str, Pair]]:
    index = scheme.checkpoint.index
    indexed = keys_of(index.weight_map).values() if index else ()
    # What the index promises and no shard holds is CK104's.
    known = {*have, *indexed}
    modules = scheme.coverage.modules
    for key, (name, tensor, shard) in base.tensors.items():
        module = key.removesuffix(".weight")
        packed = module in modules and modules[module].quantized
        if key in known or packed or is_tied_away(key, scheme.checkpoint):
            continue
        if apart and experts_of(key) in apart:
            continue
        never = is_base_only(key, base.checkpoint)
        yield "base_only" if never else "missing", Pair(name, shard, None, tensor)


def is_tied_away(key: str, scheme: Checkpoint) -> bool:
    """Whether this is a head that shares the embedding's weight and is not stored."""
    return key == "lm_head.weight" and scheme.config is not None and scheme.config.tied_embeddings


def is_base_only(key: str, base: Checkpoint) -> bool:
    """Whether no export holds this tensor of base: heads for multi-token prediction, buffers."""
    layer, layers = _LAYER.match(key), base.config.num_layers if base.config else None
    beyond = layer is not None and layers is not None and int(layer[1]) >= layers
    return beyond or _NEVER_EXPORTED.search(key) is not None


def _folded(scheme: SchemeEvidence, base: SchemeEvidence) -> frozenset[str]:
    """Keys of the modules that AWQ may have folded scales into: the norms in front of what it
    quantizes, and for NVFP4_AWQ the projections in front of o_proj and down_proj."""
    algorithms = algorithms_of(scheme)
    if not any("AWQ" in algorithm for algorithm in algorithms):
        return frozenset()
    owners = {key.rpartition(".")[0] for key in scheme.tensors}
    norms = {owner for owner in owners if "norm" in owner.rpartition(".")[2]}
    # Others fold into what they like.
    found = set(norms) if scheme.foreign else set[str]()
    moves = "NVFP4_AWQ" in algorithms or bool(scheme.foreign)
    coverage = scheme.coverage
    blocks: dict[str, set[str]] = defaultdict(set)
    for norm in norms:
        blocks[_block(norm)].add(norm)
    # What should have been quantized, or is not there to be looked at, may have been folded too.
    absent = base.coverage.modules.keys() - coverage.modules.keys()
    for key in coverage.quantized | (coverage.selected or frozenset()) | absent:
        module = coverage.modules.get(key)
        if module is None or "pre_quant_scale" not in scheme.scales.get(module.name, {}):
            found.update(_norms_before(key, blocks[_block(key)]))
            parent, _, leaf = key.rpartition(".")
            if moves and leaf in _LINEARS_BEFORE:
                found.add(f"{parent}.{_LINEARS_BEFORE[leaf]}")
    return frozenset(found)


def _norms_before(key: str, norms: Collection[str]) -> Collection[str]:
    """Those of the norms in a module's block that are in front of it, all where that is not
    known."""
    known = norms_before(key)
    if known is None:
        return norms
    present = [norm for norm in known if norm in norms]
    return present[:1] if present or not known else norms


def _block(key: str) -> str:
    """The layer that a module is in: `layers.3`, `visual.blocks.0`; nothing outside of layers."""
    match = _BLOCK.match(key)
    return match[0] if match else ""


def algorithms_of(scheme: SchemeEvidence) -> set[str]:
    """The algorithms that the config names and the tensors allow, and the AWQ formats that the
    tensors show, should the config be wrong: 4-bit weights with a pre_quant_scale."""
    config = scheme.quantization
    claimed = {config.algorithm or "", *config.layers.values()} if config else set()
    held = {name for layout in scheme.layouts.values() for name in layout.names}
    found = {name for name in claimed if (a := known_algorithm(name)) and a.layout in held}
    for module in scheme.coverage.modules.values():
        scales = scheme.scales.get(module.name, {})
        if module.dtype == "U8" and {"pre_quant_scale", "weight_scale"} <= scales.keys():
            integer = scales["weight_scale"].tensor.dtype == "F32"
            found.add("W4A16_AWQ" if integer else "NVFP4_AWQ")
    return found


def _packed(scheme: SchemeEvidence, module: Module, pair: Pair) -> Iterator[tuple[str, Pair]]:
    """What can be said of a quantized weight: whether base has it, in the shape it unpacks to."""
    assert pair.tensor is not None
    if pair.base is not None:
        if pair.base.shape not in shapes_of(scheme, module, pair.tensor):
            yield "shapes", pair
    elif not (
        is_tied_head(scheme, module)
        or module.key in scheme.coverage.not_selected
        or scheme.foreign  # other exporters give packed weights other names
    ):
        yield "extra", pair


def shapes_of(
    scheme: SchemeEvidence, module: Module, tensor: Tensor
) -> tuple[tuple[int, ...], ...]:
    """The shapes [O, I] that a quantized weight can have had before packing."""
    if tensor.dtype != "U8" or len(tensor.shape) != 2:
        return (tensor.shape,)
    scale = scheme.scales.get(module.name, {}).get("weight_scale")
    rows, columns = tensor.shape
    # INT4 holds two rows in a byte and has float scales, FP4 two columns and byte scales.
    int4, fp4 = (2 * rows, columns), (rows, 2 * columns)
    of_scale = {"F32": (int4,), "F8_E4M3": (fp4,), "U8": (fp4,)}
    return of_scale.get(scale.tensor.dtype if scale else "", (int4, fp4))
