"""What the documents of a checkpoint say, one fact a line, for people who look at a scheme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptdiff.analysis.coverage import recipe_members
from ckptdiff.analysis.quantization import claimed_algorithm
from ckptdiff.records.checkpoint import BaselineManifest, Checkpoint, QuantConfig
from ckptdiff.records.detail import (
    Fact,
    ModuleDetail,
    RecipeDetail,
    SchemeDetail,
    TensorDetail,
)
from ckptdiff.records.evidence import SchemeEvidence


def scheme_detail(scheme: SchemeEvidence) -> SchemeDetail:
    """Config, quantization config and manifests of one checkpoint."""
    checkpoint = scheme.checkpoint
    facts = (*_model(checkpoint), *_quantization(scheme.quantization), *_manifests(checkpoint))
    return SchemeDetail(checkpoint.path, checkpoint.title, tuple(facts))


def _model(checkpoint: Checkpoint) -> Iterator[Fact]:
    yield Fact("files", "shards", f"{len(checkpoint.shards):,}")
    config = checkpoint.config
    if config is not None:
        yield Fact("config.json", "architecture", ", ".join(config.architectures) or "not said")
        yield Fact("config.json", "layers", _text(config.num_layers))
        yield Fact("config.json", "hidden size", _text(config.hidden_size))
        yield Fact("config.json", "tied embeddings", "yes" if config.tied_embeddings else "no")


def _quantization(config: QuantConfig | None) -> Iterator[Fact]:
    if config is None:
        return
    where = config.source
    yield Fact(where, "algorithm", _text(config.algorithm))
    yield Fact(where, "producer", config.producer or "not said")
    if config.group_size is not None:
        yield Fact(where, "group size", f"{config.group_size}")
    if config.kv_cache_algorithm:
        yield Fact(where, "KV cache", config.kv_cache_algorithm)
    if config.layers:
        yield Fact(where, "modules with their own algorithm", f"{len(config.layers):,}")
    yield Fact(where, "excluded", _listed(config.exclude))


def _manifests(checkpoint: Checkpoint) -> Iterator[Fact]:
    for manifest in checkpoint.coverage:
        where = manifest.name
        total = len(manifest.selected) + len(manifest.dropped)
        share = "" if manifest.top_percent is None else f"{manifest.top_percent:g} %, "
        yield Fact(where, "declares", f"{share}{len(manifest.selected)} of {total} recipes")
        yield Fact(where, "scheme name", _text(manifest.scheme_name))
        yield Fact(where, "baseline", _text(manifest.baseline_dir))
    for baseline in checkpoint.baselines:
        where = baseline.name
        yield Fact(where, "search", _text(baseline.scheme_name))
        yield Fact(where, "effective bits", _text(baseline.effective_bits))
        yield Fact(where, "recipes", f"{len(baseline.recipes):,}")


def module_detail(scheme: SchemeEvidence, name: str) -> ModuleDetail | None:
    """One module by its name on disk or its key; None when the checkpoint has none of it."""
    coverage, checkpoint = scheme.coverage, scheme.checkpoint
    module = coverage.modules.get(name) or next(
        (m for m in coverage.modules.values() if m.name == name), None
    )
    if module is None:
        return None
    layout = scheme.layouts.get(module.key)
    config = scheme.quantization
    selected = coverage.selected
    return ModuleDetail(
        path=checkpoint.path,
        name=module.name,
        key=module.key,
        dtype=module.dtype,
        quantized=module.quantized,
        selected=None if selected is None else module.key in selected,
        layouts=layout.names if layout else (),
        algorithm=None if config is None else claimed_algorithm(config, module.name),
        tensors=tuple(_tensors(checkpoint, f"{module.name}.")),
        recipe=_recipe(scheme, module.key),
    )


def _tensors(checkpoint: Checkpoint, prefix: str) -> Iterator[TensorDetail]:
    """Tensors that lie directly below a module, with their byte ranges in the file."""
    for name, tensor, shard in checkpoint.items():
        if name.startswith(prefix) and "." not in name[len(prefix) :]:
            start = shard.header.data_start if shard.header else 0
            begin, end = (start + offset for offset in tensor.data_offsets)
            yield TensorDetail(name, tensor.dtype, tensor.shape, shard.name, begin, end)


def _recipe(scheme: SchemeEvidence, key: str) -> RecipeDetail | None:
    members = recipe_members(scheme.checkpoint, scheme.coverage.modules)
    name = next((recipe for recipe, group in members.items() if key in group), None)
    if name is None:
        return None
    baseline: BaselineManifest | None = scheme.baseline
    known = baseline.recipes.get(name) if baseline else None
    ranking: Sequence[str] = baseline.ranking if baseline else ()
    return RecipeDetail(
        name=name,
        members=tuple(scheme.coverage.modules[member].name for member in members[name]),
        rank=ranking.index(name) + 1 if name in ranking else known.rank if known else None,
        total=len(ranking or members),
        importance=known.importance if known else None,
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4:,} more" if len(names) > 4 else shown or "nothing"


def _text(value: object) -> str:
    return "not said" if value is None else f"{value}"
