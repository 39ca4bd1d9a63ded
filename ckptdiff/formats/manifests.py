"""The two manifests of a sweep, in every variant that producers have been seen to write."""

from __future__ import annotations

from ckptdiff.formats.documents import (
    JsonObject,
    Misfit,
    float_of,
    int_of,
    json_type,
    object_of,
    text_of,
    texts_of,
)
from ckptdiff.records.checkpoint import BaselineManifest, CoverageManifest, Recipe

MANIFEST_DIR = "layer-sensitivity"
COVERAGE_SUFFIX = "_coverage_from_baseline.json"
BASELINE_SUFFIX = "_quant_manifest.json"


def parse_coverage(document: JsonObject, name: str) -> CoverageManifest:
    """A coverage manifest. Raises `Misfit` when it does not list what it selects."""
    if document.get("selected_layers") is None:
        raise Misfit('has no "selected_layers"')
    return CoverageManifest(
        name=name,
        scheme_name=text_of(document, "scheme_name"),
        baseline_dir=text_of(document, "baseline_dir"),
        baseline_manifest=text_of(document, "baseline_manifest"),
        top_percent=float_of(document, "top_percent"),
        fraction=float_of(document, "coverage_fraction"),
        total=int_of(document, "num_layers_total"),
        num_selected=int_of(document, "num_layers_selected"),
        num_dropped=int_of(document, "num_layers_dropped"),
        selected=texts_of(document, "selected_layers"),
        dropped=texts_of(document, "dropped_layers"),
    )


def parse_baseline(document: JsonObject, name: str) -> BaselineManifest:
    """A baseline manifest. Raises `Misfit` when it holds neither ranking nor recipes.

    `layers` is left unread on purpose: it lists every converted module as quantized,
    whatever the search decided.
    """
    recipes = _recipes(document.get("layer_sensitivity"))
    ranking = _ranking(document.get("sensitivity_ranking")) or _ranking_from(recipes)
    if not recipes and not ranking:
        raise Misfit('has neither "layer_sensitivity" nor "sensitivity_ranking"')
    constraints = object_of(object_of(document, "autoquant_state"), "constraints")
    return BaselineManifest(
        name=name,
        scheme_name=text_of(object_of(document, "scheme"), "name"),
        effective_bits=float_of(constraints, "effective_bits"),
        recipes=recipes,
        ranking=ranking,
    )


def _recipes(value: object) -> dict[str, Recipe]:
    """`layer_sensitivity` as a map {recipe: facts}, or in older files as a list of facts."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {name: _recipe(name, facts) for name, facts in value.items()}
    if isinstance(value, list):
        named = [(_name_of(item), item) for item in value]
        return {name: _recipe(name, item) for name, item in named}
    raise Misfit(f'"layer_sensitivity" is of type {json_type(value)}, expected an object')


def _recipe(name: str, facts: object) -> Recipe:
    if isinstance(facts, str):
        return Recipe(name=name)
    if not isinstance(facts, dict):
        raise Misfit(f'"layer_sensitivity" holds {json_type(facts)} for "{name}"')
    return Recipe(
        name=name,
        formats=texts_of(facts, "formats"),
        importance=float_of(facts, "importance"),
        rank=int_of(facts, "rank"),
    )


def _name_of(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        for key in ("name", "layer"):
            if isinstance(item.get(key), str):
                return str(item[key])
    raise Misfit(f"a list of recipes holds {json_type(item)} without a name")


def _ranking(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(_name_of(item) for item in value)
    raise Misfit(f'"sensitivity_ranking" is of type {json_type(value)}, expected a list')


def _ranking_from(recipes: dict[str, Recipe]) -> tuple[str, ...]:
    """The ranking by `rank` where an older file lacks the list; () when unknown."""
    ranks = [(recipe.rank, name) for name, recipe in recipes.items() if recipe.rank is not None]
    return tuple(name for _, name in sorted(ranks))
