"""Coverage from headers alone: dtypes and scales on disk against the manifests.

Truth is the dtype of a weight. What AutoQuant's `layers` or a config says is a claim,
judged by rules; nothing here trusts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.formats.names import (
    RECIPE_SUFFIX,
    RecipeGroups,
    declared_share,
    keys_of,
    module_key,
    weight_module,
)
from ckptdiff.records.checkpoint import BaselineManifest, Checkpoint, CoverageManifest, Tensor
from ckptdiff.records.coverage import Coverage, Declared, Module

# Dtypes that only a quantizer gives to a weight, with the bits that AutoQuant counts.
# ModelOpt packs two 4-bit codes into a U8.
QUANTIZED_BITS = {
    "F8_E4M3": 8.0,
    "F8_E5M2": 8.0,
    "I8": 8.0,
    "U8": 4.0,
    "I32": 4.0,
    "F4": 4.0,
    "F6_E2M3": 6.0,
    "F6_E3M2": 6.0,
}
# AutoQuant adds NVFP4's FP8 scale per 16 elements, and no other format's scales.
NVFP4_BITS = 4.5
UNQUANTIZED_BITS = 16.0
_CODES_PER_ELEMENT = {"U8": 2, "I32": 8}


def coverage_of(scheme: Checkpoint) -> Coverage:
    """Declared and actual coverage of one scheme, from its headers and manifests."""
    modules = modules_of(scheme)
    quantized = frozenset(key for key, module in modules.items() if module.quantized)
    manifest = scheme.coverage[0] if scheme.coverage else None
    baseline = baseline_of(scheme)
    key = _recipe_key(modules)
    members = _members(modules, key, _ranking(manifest, baseline))
    declared = _declared(scheme, modules, manifest, baseline, key, members)
    if manifest is None and baseline is None:
        ranked = frozenset(key for key, module in modules.items() if _is_linear(module))
    else:
        ranked = frozenset(member for group in members.values() for member in group)
    scope = frozenset(key for key in ranked if modules[key].packable)
    return Coverage(
        modules=modules,
        scope=scope | quantized,
        quantized=quantized,
        effective_bits=_effective_bits(modules, ranked | quantized),
        declared=declared,
        complete=scheme.readable,
    )


def recipe_members(scheme: Checkpoint, modules: Mapping[str, Module]) -> dict[str, tuple[str, ...]]:
    """recipe as the manifests name it -> the keys of the existing modules it stands for."""
    manifest = scheme.coverage[0] if scheme.coverage else None
    return _members(modules, _recipe_key(modules), _ranking(manifest, baseline_of(scheme)))


def modules_of(checkpoint: Checkpoint) -> dict[str, Module]:
    """key -> module for every module that owns a weight, in order of appearance."""
    tensors = {name: (tensor, shard.name) for name, tensor, shard in checkpoint.items()}
    weights = {name: module for name in tensors if (module := weight_module(name))}
    # A module is what its own weight is: nothing that another exporter would write beside it.
    weights = {
        name: module
        for name, module in weights.items()
        if name == f"{module}.weight" or f"{module}.weight" not in tensors
    }
    keys = keys_of(weights.values())
    modules = {}
    for weight, name in weights.items():
        tensor, shard = tensors[weight]
        scale = tensors.get(f"{name}.weight_scale")
        modules[keys[name]] = _module(
            keys[name], name, weight, tensor, shard, scale[0] if scale else None
        )
    return modules


def _module(
    key: str, name: str, weight: str, tensor: Tensor, shard: str, scale: Tensor | None
) -> Module:
    quantized = tensor.dtype in QUANTIZED_BITS
    bits = QUANTIZED_BITS.get(tensor.dtype, UNQUANTIZED_BITS)
    elements = math.prod(tensor.shape) * _CODES_PER_ELEMENT.get(tensor.dtype, 1)
    if tensor.dtype == "U8" and scale is not None and scale.dtype == "F8_E4M3":
        blocks = math.prod(scale.shape)
        if blocks and elements // blocks == 16:
            bits = NVFP4_BITS
    return Module(
        key=key,
        name=name,
        weight=weight,
        dtype=tensor.dtype,
        shard=shard,
        elements=elements,
        bits=bits,
        quantized=quantized,
        packable=len(tensor.shape) == 2 or quantized,
    )


def is_full_precision(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint has weights, none is quantized and no config says so."""
    config = checkpoint.config.quantization if checkpoint.config else None
    if checkpoint.quant_config or config or checkpoint.coverage:
        return False
    dtypes = [tensor.dtype for name, tensor, _ in checkpoint.items() if weight_module(name)]
    return bool(dtypes) and not any(dtype in QUANTIZED_BITS for dtype in dtypes)


def baseline_of(scheme: Checkpoint) -> BaselineManifest | None:
    """The baseline manifest that a scheme belongs to.

    A scheme may hold several (its own and its baseline's): the one that its coverage
    manifest names, else the one whose scheme is part of the directory's name.
    """
    if scheme.coverage and scheme.coverage[0].baseline_manifest:
        wanted = _basename(scheme.coverage[0].baseline_manifest)
        for manifest in scheme.baselines:
            if _basename(manifest.name) == wanted:
                return manifest
    named = [m for m in scheme.baselines if m.scheme_name and m.scheme_name in scheme.id]
    if named:
        return max(named, key=lambda m: len(m.scheme_name or ""))
    return scheme.baselines[0] if scheme.baselines else None


def _basename(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _declared(
    scheme: Checkpoint,
    modules: dict[str, Module],
    manifest: CoverageManifest | None,
    baseline: BaselineManifest | None,
    key: Callable[[str], str],
    members: Mapping[str, tuple[str, ...]],
) -> Declared | None:
    share = declared_share(scheme.title)
    if manifest is None:
        return None if share is None else Declared(percent=share)
    # The search never had more than NONE for these, so selecting them selects nothing.
    never = {key(r.name) for r in baseline.recipes.values() if not r.eligible} if baseline else {}
    selected, dropped = (
        frozenset(
            member
            for name in names
            if key(name) not in never
            for member in members[name]
            if modules[member].packable
        )
        for names in (manifest.selected, manifest.dropped)
    )
    unknown = tuple(n for n, group in members.items() if not group and key(n) != "lm_head")
    if unknown:
        promised = RecipeGroups.of(modules.keys() | _promised(scheme, key), ())
        unknown = tuple(name for name in unknown if not promised.expand(key(name)))
    percent = manifest.top_percent
    if percent is None and manifest.fraction is not None:
        percent = manifest.fraction * 100
    return Declared(
        percent=share if percent is None else percent,
        selected=selected,
        dropped=dropped - selected,
        recipes_total=len(manifest.selected) + len(manifest.dropped),
        # A tensor behind an unreadable shard is unknown, never missing.
        unknown=unknown if scheme.readable else (),
        manifest=manifest.name,
    )


def _promised(scheme: Checkpoint, key: Callable[[str], str]) -> set[str]:
    """Modules that the index names or that have a scale: lost, which other rules report,
    and not unknown."""
    indexed = scheme.index.weight_map if scheme.index else ()
    found = {key(module) for name in indexed if (module := weight_module(name))}
    return found | {key(split[0]) for name, _, _ in scheme.items() if (split := scale_suffix(name))}


def _ranking(
    manifest: CoverageManifest | None, baseline: BaselineManifest | None
) -> tuple[str, ...]:
    """The recipes that there are, as the manifest or else the baseline names them."""
    if manifest is not None:
        return manifest.selected + manifest.dropped
    return (baseline.ranking or tuple(baseline.recipes)) if baseline else ()


def _members(
    modules: Mapping[str, Module], key: Callable[[str], str], names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """recipe -> the keys of the existing modules that it stands for."""
    groups = RecipeGroups.of(modules, map(key, names))
    return {name: groups.expand(key(name)) for name in names}


def _is_linear(module: Module) -> bool:
    """A 2-D weight that is no embedding: what a quantizer would take without a ranking."""
    leaf = module.key.rpartition(".")[2]
    return module.packable and "embed" not in leaf and leaf not in ("lm_head", "wte", "wpe")


def _recipe_key(modules: Mapping[str, Module]) -> Callable[[str], str]:
    """recipe name -> module key, in the spelling that the keys of `modules` use."""
    if all(module_key(module.name) == key for key, module in modules.items()):
        return module_key
    return lambda recipe: recipe.removesuffix(RECIPE_SUFFIX)


def _effective_bits(modules: dict[str, Module], keys: Iterable[str]) -> float | None:
    """Bits per weight over `keys`, weighted by elements, as AutoQuant counts them."""
    chosen = [modules[key] for key in keys]
    elements = sum(module.elements for module in chosen)
    if not elements:
        return None
    return sum(module.elements * module.bits for module in chosen) / elements
