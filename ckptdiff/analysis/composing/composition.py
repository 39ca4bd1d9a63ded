"""Puts a scheme together on paper: which tensor comes from where, and both configs.

Selected modules take weight and scales from a donor, dropped ones the weight of base in the
dtype that the export stores; that is bit for bit what ModelOpt's own export of the subset
holds, because calibration does not depend on which layers are enabled. AWQ folds a scale into
the norm in front of q, k, v or gate, up: that norm goes with its group. Nothing is read here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ckptdiff.analysis.against_base import FLOATS, is_base_only, is_tied_away
from ckptdiff.analysis.composing.donors import Assignment
from ckptdiff.analysis.composing.export_configs import (
    document_bytes,
    model_document,
    quant_document,
)
from ckptdiff.analysis.composing.partition import Partition
from ckptdiff.analysis.composing.sharding import index_document, shards_of
from ckptdiff.analysis.ordering import natural
from ckptdiff.analysis.quantization import WEIGHT_SCALES, fused_groups
from ckptdiff.errors import UsageError
from ckptdiff.formats.configs import CONFIG_NAME, QUANT_CONFIG_NAME
from ckptdiff.formats.documents import JsonObject
from ckptdiff.formats.dtypes import nbytes
from ckptdiff.formats.index import INDEX_NAME
from ckptdiff.formats.layouts import MIXED, packed_as, scale_suffix
from ckptdiff.formats.names import bare, norms_before
from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.composition import Cast, Composition, Made, Piece, Source, Stored
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName, Suffix

Found = tuple[str, Tensor, str]  # name, tensor and shard, as evidence has them
KV_SCALES: tuple[Suffix, ...] = ("k_scale", "v_scale")
_EXPERT = re.compile(r"^(.*\.experts)\.\d+\.")


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a composition is made of.

    `template` gives names, dtypes and configs: the donor that supplies most. `config` and
    `quant_config` are its two documents, `quant_configs` those of all donors, its own first.
    """

    base: SchemeEvidence
    template: SchemeEvidence
    partition: Partition
    assignment: Assignment
    config: JsonObject
    quant_config: JsonObject
    quant_configs: tuple[JsonObject, ...]


def compose(parts: Ingredients) -> Composition:
    """The new checkpoint, without its manifests and companions.

    Raises `UsageError` when a tensor would come from nowhere.
    """
    homes = _Homes.of(parts)
    pieces = [*_plain(parts, homes), *_quantized(parts, homes), *_kv_scales(parts, homes)]
    shards = shards_of(pieces, _order(parts.template))
    quant = _quant_document(parts, homes)
    documents = {
        QUANT_CONFIG_NAME: document_bytes(quant),
        CONFIG_NAME: document_bytes(model_document(parts.config, quant)),
    }
    if len(shards) > 1:
        documents[INDEX_NAME] = index_document(shards)
    donated = tuple(
        (donor, frozenset(k for k, d in parts.assignment.donors.items() if d is donor))
        for donor in parts.assignment.used
    )
    return Composition(
        base=parts.base,
        shards=shards,
        documents=documents,
        donated=donated,
        host=homes.weights,
    )


@dataclass(frozen=True, slots=True)
class _Homes:
    """Spellings and dtypes of the export. `names` maps a tensor's key to its name, `stored`
    the dtype of an unquantized tensor of base to that of the export, `weights` is the dtype of
    most unquantized weights there."""

    names: Mapping[str, str]
    stored: Mapping[str, str]
    weights: str
    shards: Mapping[str, Mapping[str, Shard]]  # by path of the checkpoint, then by name

    @classmethod
    def of(cls, parts: Ingredients) -> _Homes:
        votes: dict[str, Counter[str]] = {}
        heavy: Counter[str] = Counter()
        for key, (_, tensor, _) in parts.template.tensors.items():
            ours = parts.base.tensors.get(key)
            if ours is not None and {tensor.dtype, ours[1].dtype} <= FLOATS:
                votes.setdefault(ours[1].dtype, Counter())[tensor.dtype] += 1
                heavy[tensor.dtype] += tensor.nbytes
        names = {key: name for key, (name, _, _) in parts.template.tensors.items()}
        stored = {dtype: counted.most_common(1)[0][0] for dtype, counted in votes.items()}
        everyone = (parts.base, parts.template, *parts.assignment.used)
        shards = {
            each.checkpoint.path: {shard.name: shard for shard in each.checkpoint.shards}
            for each in everyone
        }
        return cls(names, stored, heavy.most_common(1)[0][0] if heavy else "BF16", shards)

    def shard(self, scheme: SchemeEvidence, name: str) -> Shard:
        return self.shards[scheme.checkpoint.path][name]

    def copied(self, name: str, donor: SchemeEvidence, found: Found) -> Piece:
        """A tensor of a donor as it is, under `name`."""
        theirs, tensor, home = found
        source = Stored(self.shard(donor, home), theirs)
        return Piece(name, tensor.dtype, tensor.shape, tensor.nbytes, source)

    def name(self, key: str, other: str) -> str:
        """The name of a tensor in the export, `other` when the template lacks it."""
        return self.names.get(key, other)

    def module(self, key: str, other: str) -> str:
        weight = self.names.get(f"{key}.weight")
        return other if weight is None else weight.removesuffix(".weight")


def _plain(parts: Ingredients, homes: _Homes) -> Iterator[Piece]:
    """Every tensor that is not part of a quantized module."""
    template, base = parts.template, parts.base
    packed = {f"{key}.weight" for key in parts.partition.selected}
    folded = _folded_norms(parts)
    for key, (name, tensor, home) in base.tensors.items():
        if key in packed or scale_suffix(name):
            continue
        mine = template.tensors.get(key)
        if mine is None and (
            is_base_only(key, base.checkpoint) or is_tied_away(key, template.checkpoint)
        ):
            continue
        if donor := folded.get(key.rpartition(".")[0]):
            theirs = donor.tensors[key]
            yield homes.copied(homes.name(key, name), donor, theirs)
            continue
        dtype = homes.stored.get(tensor.dtype, tensor.dtype)
        if mine is not None and {mine[1].dtype, tensor.dtype} <= FLOATS:
            dtype = mine[1].dtype
        yield _from_base(homes.name(key, name), dtype, tensor, homes.shard(base, home), name)
    for key, (name, tensor, home) in template.tensors.items():
        # What only the export has, a head of its own for instance.
        if key not in base.tensors and key not in packed and scale_suffix(name) is None:
            if tensor.dtype not in FLOATS:
                raise UsageError(
                    f"{template.id} holds {name} in {tensor.dtype}, and base has no such tensor",
                    "Name another donor by --donor.",
                )
            yield homes.copied(name, template, (name, tensor, home))


def _quantized(parts: Ingredients, homes: _Homes) -> Iterator[Piece]:
    """Weight and scales of every selected module."""
    modules = parts.base.coverage.modules
    for key, donor in parts.assignment.donors.items():
        module = donor.coverage.modules[key]
        target = homes.module(key, modules[key].name)
        yield homes.copied(f"{target}.weight", donor, donor.tensors[f"{key}.weight"])
        for suffix, scale in donor.scales[module.name].items():
            if suffix in WEIGHT_SCALES:
                yield homes.copied(
                    f"{target}.{suffix}", donor, (scale.name, scale.tensor, scale.shard)
                )
    # ModelOpt finds what shares an input by a forward of text: vision towers share nothing.
    text = (key for key in modules if key.startswith("layers."))
    groups = {key: group for group in fused_groups(text) for key in group}
    for key, layout in parts.assignment.made.items():
        members = (key, *(other for other in groups.get(key, ()) if other != key))
        stored = tuple(
            Stored(homes.shard(parts.base, modules[each].shard), modules[each].weight)
            for each in members
        )
        yield from _made(key, layout, stored, homes.module(key, modules[key].name))


def _made(
    key: str, layout: LayoutName, members: tuple[Stored, ...], target: str
) -> Iterator[Piece]:
    """The pieces of a module that is made from base."""
    rows, columns = members[0].shard.tensors[members[0].name].shape
    (dtype, shape), scales = packed_as(layout, rows, columns)
    source = Made(key, layout, None, members)
    yield Piece(f"{target}.weight", dtype, shape, nbytes(dtype, shape), source)
    for suffix, (dtype, shape) in scales.items():
        source = Made(key, layout, suffix, members)
        yield Piece(f"{target}.{suffix}", dtype, shape, nbytes(dtype, shape), source)


def _kv_scales(parts: Ingredients, homes: _Homes) -> Iterator[Piece]:
    """Scales of the KV cache: every attention has them, whatever is selected."""
    donors = parts.assignment.donors
    for key, module in parts.template.coverage.modules.items():
        donor = donors.get(key, parts.template)
        name = donor.coverage.modules[key].name
        for suffix in KV_SCALES:
            scale = donor.scales.get(name, {}).get(suffix)
            scale = scale or parts.template.scales.get(module.name, {}).get(suffix)
            if scale is not None:
                source = donor if scale.module == name else parts.template
                yield homes.copied(
                    f"{homes.module(key, module.name)}.{suffix}",
                    source,
                    (scale.name, scale.tensor, scale.shard),
                )


def _folded_norms(parts: Ingredients) -> dict[str, SchemeEvidence]:
    """module key of a norm -> the donor whose AWQ scales are folded into it.

    Raises `UsageError` when a folded scale went where it cannot be found.
    """
    found: dict[str, SchemeEvidence] = {}
    for key, donor in parts.assignment.donors.items():
        module = donor.coverage.modules[key]
        layout = donor.layouts[key].names
        norms = norms_before(key)
        if not norms or not {"int4", "int4-fp8"} & set(layout):
            continue
        if "pre_quant_scale" in donor.scales[module.name]:
            continue
        norm = next((n for n in norms if f"{n}.weight" in donor.tensors), None)
        if norm is None:
            raise UsageError(
                f"AWQ folded the scales of {module.name} into a norm that is not known",
                "Export this scheme by ModelOpt itself: this version cannot compose it.",
            )
        found[norm] = donor
    return found


def _quant_document(parts: Ingredients, homes: _Homes) -> dict[str, object]:
    """hf_quant_config.json of the new checkpoint."""
    modules = parts.base.coverage.modules
    fused = _fuses_experts(parts.config)
    chosen = parts.partition.selected | parts.partition.unpackable

    def listed(key: str) -> str:
        name = homes.module(key, modules[key].name)
        match = _EXPERT.match(name) if fused else None
        return match[1] if match else name

    quantized = {listed(key) for key in chosen if key in modules}
    rest = {
        listed(key)
        for key, module in modules.items()
        if key not in chosen
        and _owns_quantizer(module.weight, parts.base.tensors)
        and (key in parts.template.coverage.modules or f"{key}.weight" in homes.names)
    }
    config = parts.template.checkpoint.config
    if config is not None and config.tied_embeddings:
        rest.add("lm_head")
    return quant_document(parts.quant_config, _layers(parts, quantized), rest - quantized)


def _layers(parts: Ingredients, quantized: set[str]) -> dict[str, JsonObject]:
    """What MIXED_PRECISION lists of each quantized module, in the order of the model; {} of
    each where all have one algorithm."""
    algorithm = str(parts.quant_config["quantization"].get("quant_algo"))
    if algorithm.upper() != MIXED:
        return {name: {} for name in sorted(quantized)}
    listed: dict[str, JsonObject] = {}
    for document in parts.quant_configs:
        for name, layer in document["quantization"].get("quantized_layers", {}).items():
            if name in quantized:
                listed.setdefault(name, layer)
    return listed


def _owns_quantizer(weight: str, tensors: Mapping[str, Found]) -> bool:
    """Whether ModelOpt attaches quantizers to the module of this weight: linears, embeddings,
    routers and convolutions, not norms."""
    return len(tensors[bare(weight)][1].shape) > 1 if bare(weight) in tensors else False


def _fuses_experts(config: JsonObject) -> bool:
    """Whether the exporting transformers keeps the experts of a layer in one module."""
    version = str(config.get("transformers_version", ""))
    return version.partition(".")[0].isdecimal() and int(version.partition(".")[0]) >= 5


def _from_base(name: str, dtype: str, tensor: Tensor, shard: Shard, theirs: str) -> Piece:
    """A tensor of base in the dtype of the export."""
    same = dtype == tensor.dtype
    source: Source = Stored(shard, theirs) if same else Cast(shard, theirs)
    return Piece(name, dtype, tensor.shape, nbytes(dtype, tensor.shape), source)


def _order(template: SchemeEvidence) -> Callable[[Piece], object]:
    """Tensors as the template spreads them over its files, and by number where that is open."""
    places = {shard.name: n for n, shard in enumerate(template.checkpoint.shards)}
    homes = {name: places[shard.name] for name, _, shard in template.checkpoint.items()}
    return lambda piece: (homes.get(piece.name, len(places)), natural(piece.name))
