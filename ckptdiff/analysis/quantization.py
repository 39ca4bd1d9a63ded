"""What a quantization config says of a module, read the way that loaders read it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from ckptdiff.formats.layouts import ALGORITHMS, MIXED, Algorithm
from ckptdiff.formats.names import FUSED, module_key, norms_before
from ckptdiff.records.checkpoint import QuantConfig
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.layout import Suffix

# Scales of the KV cache belong to the attention, whether its projections are quantized or not.
WEIGHT_SCALES: tuple[Suffix, ...] = (
    "weight_scale",
    "weight_scale_2",
    "input_scale",
    "pre_quant_scale",
)
_EXPERTS = re.compile(r"^(.*\.experts)\.\d+\.")
_DECODER = re.compile(r"layers\.\d+\.(self_attn|mlp)\.\w+$")
_NUMBER = re.compile(r"\d+")
_WILDCARD = re.compile(r"[*?[]")


def module_algorithm(config: QuantConfig | None, module: str) -> str | None:
    """The algorithm that `config` gives to a module named as on disk; None when it says
    nothing. A fused MoE is listed once for all experts of a layer."""
    if config is None or config.algorithm is None:
        return None
    if config.algorithm.upper() != MIXED:
        return config.algorithm
    return config.layers.get(_listed_as(config, module))


def module_group_size(config: QuantConfig, module: str) -> int | None:
    """The group size that `config` gives to a module, None when it says nothing."""
    return config.group_sizes.get(_listed_as(config, module), config.group_size)


def _listed_as(config: QuantConfig, module: str) -> str:
    """The name that `quantized_layers` has for a module."""
    experts = _EXPERTS.match(module)
    return experts[1] if experts and module not in config.layers else module


def known_algorithm(name: str | None) -> Algorithm | None:
    """What an algorithm's name stands for, None for an unknown name."""
    return ALGORITHMS.get(name.upper()) if name else None


def claimed_algorithm(config: QuantConfig, module: str) -> str | None:
    """The algorithm that a loader takes from `config` for a module, None when it leaves the
    module unquantized."""
    if (config.algorithm or "").upper() == MIXED:
        return module_algorithm(config, module)
    return None if is_excluded(config, module) else config.algorithm


def follows_config(scheme: SchemeEvidence, module: Module) -> bool:
    """Whether a module is quantized if, and only if, the config says so; True without one."""
    config = scheme.quantization
    if config is None or config.algorithm is None:
        return True
    return module.quantized == (claimed_algorithm(config, module.name) is not None)


def has_orphans(scheme: SchemeEvidence, module: Module) -> bool:
    """Whether an unquantized module has scales of a quantized one."""
    scales = scheme.scales.get(module.name, {})
    return not module.quantized and any(suffix in scales for suffix in WEIGHT_SCALES)


def reshaped(evidence: Evidence, scheme: SchemeEvidence) -> frozenset[str]:
    """Tensors whose shape is not base's: CK604 says so, and what else is odd follows from it."""
    compared = evidence.against_base.get(scheme.id)
    return frozenset(pair.name for pair in compared.shapes) if compared else frozenset()


def promised_by_index(scheme: SchemeEvidence, tensor: str) -> bool:
    """Whether the index names a tensor: when it is absent, CK104 says so."""
    index = scheme.checkpoint.index
    return index is not None and tensor in index.weight_map


@lru_cache(maxsize=1 << 15)
def is_excluded(config: QuantConfig, module: str) -> bool:
    """Whether `exclude_modules` leaves a module out, in any spelling of its name.

    Patterns are shell patterns; an entry without a wildcard is the module of that name and,
    as older exports mean it, everything below it.
    """
    excluder = _excluder(config)
    for name in (module, module_key(module)):
        if excluder.other is not None and excluder.other.match(name):
            return True
        # Beginnings of the name instead of entries: lists of those are long.
        for end in range(len(name) + 1):
            if name[:end] in excluder.prefixes:
                return True
            if (end == len(name) or name[end] == ".") and name[:end] in excluder.names:
                return True
    return False


@dataclass(frozen=True, slots=True)
class _Excluder:
    """The entries of `exclude_modules`: names, what stands before a final `*`, and the rest."""

    names: frozenset[str]
    prefixes: frozenset[str]
    other: re.Pattern[str] | None


@lru_cache(maxsize=64)
def _excluder(config: QuantConfig) -> _Excluder:
    entries = {spelled for entry in config.exclude for spelled in (entry, module_key(entry))}
    names = {entry for entry in entries if not _WILDCARD.search(entry)}
    starred = {entry for entry in entries - names if not _WILDCARD.search(entry[:-1])}
    prefixes = {entry[:-1] for entry in starred if entry.endswith("*")}
    rest = sorted(entries - names - {f"{prefix}*" for prefix in prefixes})
    other = re.compile("|".join(map(translate, rest))) if rest else None
    return _Excluder(frozenset(names), frozenset(prefixes), other)


def fused_groups(modules: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Modules that a serving engine loads as one: q, k and v; gate and up. Keys in, keys out;
    only groups of which at least two members are there."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    numbers = {leaf: number for number, group in enumerate(FUSED) for leaf in group}
    for module in modules:
        parent, _, leaf = module.rpartition(".")
        if leaf in numbers:
            found[parent, numbers[leaf]].append(module)
    return tuple(tuple(sorted(members)) for members in found.values() if len(members) > 1)


def lacking_scales(scheme: SchemeEvidence) -> Iterator[tuple[str, Suffix]]:
    """(module, scale) where other modules say that one belongs there, or where nothing else can
    hold what it is for."""
    yield from _lacking_by_place(scheme)
    for key in _nowhere_folded(scheme):
        if "pre_quant_scale" not in scheme.scales.get(scheme.coverage.modules[key].name, {}):
            yield key, "pre_quant_scale"


def _lacking_by_place(scheme: SchemeEvidence) -> Iterator[tuple[str, Suffix]]:
    """Where two or more, and in all, other modules of the same place have one."""
    modules = scheme.coverage.modules
    suffixes: tuple[Suffix, ...] = ("pre_quant_scale", "k_scale", "v_scale")
    for suffix in suffixes:
        if not any(suffix in scales for scales in scheme.scales.values()):
            continue
        of_cache = suffix != "pre_quant_scale"
        lacking: dict[str, list[str]] = defaultdict(list)
        having: dict[str, int] = defaultdict(int)
        for key in modules if of_cache else sorted(scheme.coverage.quantized):
            if suffix in scheme.scales.get(modules[key].name, {}):
                having[pattern_of(key)] += 1
            else:
                lacking[pattern_of(key)].append(key)
        for pattern, keys in lacking.items():
            if len(keys) == 1 and having[pattern] > 1:
                yield keys[0], suffix


def _nowhere_folded(scheme: SchemeEvidence) -> Iterator[str]:
    """Modules whose scale of AWQ no layer in front can hold. Of decoder layers alone: experts and
    vision towers may have seen no calibration data, and then have none."""
    config = scheme.quantization
    if config is None:
        return
    present = scales_of_algorithms(scheme, config)
    for key in sorted(scheme.coverage.quantized):
        claimed = claimed_algorithm(config, scheme.coverage.modules[key].name) or ""
        if "AWQ" not in claimed.upper() or not _DECODER.match(key) or norms_before(key) != ():
            continue
        # Where the tensors are none of that algorithm's, the config is wrong, which is CK401's.
        algorithm = known_algorithm(claimed)
        if algorithm is None or algorithm.layout not in scheme.layouts[key].names:
            continue
        if not present[claimed].issuperset(algorithm.scales):
            continue
        if claimed.upper() == "NVFP4_AWQ" and not _apart(scheme, key):
            continue
        yield key


def scales_of_algorithms(scheme: SchemeEvidence, config: QuantConfig) -> dict[str, set[Suffix]]:
    """algorithm -> the scales that any of its modules has."""
    found: dict[str, set[Suffix]] = {}
    for key in scheme.coverage.quantized:
        name = scheme.coverage.modules[key].name
        if claimed := claimed_algorithm(config, name):
            found.setdefault(claimed, set()).update(scheme.scales.get(name, {}))
    return found


def _apart(scheme: SchemeEvidence, key: str) -> bool:
    """Whether NVFP4_AWQ cannot fold an o_proj's scale into v_proj, having fewer heads there."""
    layer, _, leaf = key.rpartition(".")
    mine, before = (scheme.tensors.get(f"{layer}.{name}.weight") for name in ("o_proj", "v_proj"))
    if leaf != "o_proj" or mine is None or before is None:
        return False
    if not len(mine[1].shape) == len(before[1].shape) == 2:
        return False
    outputs, columns = before[1].shape[0], mine[1].shape[-1]
    return outputs != columns * (2 if mine[1].dtype == "U8" else 1)


def pattern_of(module: str) -> str:
    """A module's name with its numbers taken out: the same in every layer and expert."""
    return _NUMBER.sub("N", module)


def is_tied_head(scheme: SchemeEvidence, module: Module) -> bool:
    """Whether the module is an `lm_head` that shares the embedding's weight."""
    config = scheme.checkpoint.config
    return module.key == "lm_head" and config is not None and config.tied_embeddings
