"""CK3, coverage: what manifests say against what tensors hold, one contradiction at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mutate import (
    Mutant,
    baseline_path,
    coverage,
    coverage_path,
    document,
    excluded,
    graft,
    quantization,
    read_tensors,
    split,
    tensors,
    weights_of,
)

import ckptdiff
from ckptdiff.records.finding import Location

SELECTED = "model.layers.1.self_attn.o_proj"  # by top30, not by top10
MEMBER = "model.layers.3.self_attn.v_proj"
DROPPED = "model.layers.5.mlp.down_proj"  # by all but top100
SUBSETS = (10, 30, 50, 100)


def recipe(module: str) -> str:
    return f"{module.replace('model.', 'language_model.', 1)}.quant_recipe"


def in_manifest(scheme: Path, *recipes: str | None) -> list[Location]:
    name = coverage_path(scheme).relative_to(scheme).as_posix()
    return [Location(module=recipe, shard=name) for recipe in recipes]


def test_all_ck3_clean(mutant: Mutant) -> None:
    assert mutant.new() == []


@pytest.mark.parametrize("module", [SELECTED, MEMBER, "visual.merger.mlp.0"])
def test_ck301_fires(mutant: Mutant, module: str) -> None:
    graft(mutant[30], module, mutant.base)
    finding = mutant.expect("CK301", mutant[30], weights_of(module))
    assert (finding.locations[0].expected, finding.locations[0].actual) == ("quantized", "BF16")
    assert finding.message.startswith("1 of 18 selected modules")


def test_ck301_fires_for_a_weight_put_back_beside_its_scales(mutant: Mutant) -> None:
    """The scales are orphans then, but the manifest says more: no CK202."""
    with tensors(mutant[30]) as found:
        name = f"{SELECTED}.weight"
        found[name] = read_tensors(mutant.base / "model.safetensors")[name]
    mutant.expect("CK301", mutant[30], weights_of(SELECTED))


def test_ck301_fires_where_only_the_manifest_is_wrong(mutant: Mutant) -> None:
    """The next recipe of the ranking is listed as selected, tensors and configs stay."""
    with coverage(mutant[30]) as manifest:
        manifest["selected_layers"].append(manifest["dropped_layers"].pop(0))
    mutant.expect("CK301", mutant[30], weights_of("model.layers.3.self_attn.o_proj"))


@pytest.mark.parametrize("module", [DROPPED, "model.layers.4.self_attn.q_proj"])
def test_ck302_fires(mutant: Mutant, module: str) -> None:
    graft(mutant[30], module, mutant[100])
    finding = mutant.expect("CK302", mutant[30], weights_of(module))
    assert (finding.locations[0].expected, finding.locations[0].actual) == (
        "unquantized",
        "F8_E4M3",
    )


def test_ck302_fires_where_only_the_manifest_is_wrong(mutant: Mutant) -> None:
    with coverage(mutant[30]) as manifest:
        manifest["dropped_layers"].insert(0, manifest["selected_layers"].pop())
    mutant.expect("CK302", mutant[30], weights_of("visual.merger.mlp.0"))


def test_ck302_fires_for_what_the_manifest_does_not_name(mutant: Mutant) -> None:
    """A module outside the ranking is not selected either."""
    for path in mutant.root.iterdir():
        with document(baseline_path(path)) as search:
            search["layer_sensitivity"].pop(recipe(DROPPED))
            ranking = search["sensitivity_ranking"]
            ranking[:] = [entry for entry in ranking if entry["name"] != recipe(DROPPED)]
    for percent in SUBSETS:
        with coverage(mutant[percent]) as manifest:
            part = "selected_layers" if percent == 100 else "dropped_layers"
            manifest[part].remove(recipe(DROPPED))
    mutant.expect("CK302", mutant[100], weights_of(DROPPED))


@pytest.mark.parametrize("key", ["num_layers_selected", "num_layers_dropped", "num_layers_total"])
def test_ck303_fires_on_counts(mutant: Mutant, key: str) -> None:
    with document(coverage_path(mutant[30])) as manifest:
        manifest[key] += 1
    finding = mutant.expect("CK303", mutant[30], in_manifest(mutant[30], None))
    assert key in (finding.locations[0].actual or "")


@pytest.mark.parametrize(
    ("part", "actual"), [("selected_layers", "selected and dropped"), ("dropped_layers", "twice")]
)
def test_ck303_fires_on_a_repeated_recipe(mutant: Mutant, part: str, actual: str) -> None:
    with coverage(mutant[30]) as manifest:
        repeated = manifest[part][0]
        manifest["dropped_layers"].append(repeated)
    finding = mutant.expect("CK303", mutant[30], in_manifest(mutant[30], repeated))
    assert actual in (finding.locations[0].actual or "")


def test_ck303_fires_on_a_recipe_that_is_not_listed(mutant: Mutant) -> None:
    with coverage(mutant[30]) as manifest:
        lost = manifest["dropped_layers"].pop()
    finding = mutant.expect("CK303", mutant[30], in_manifest(mutant[30], lost))
    assert finding.locations[0].actual == "not listed"


@pytest.mark.parametrize("name", ["language_model.layers.99.mlp.down_proj.quant_recipe", "x"])
def test_ck303_fires_on_a_recipe_that_is_not_ranked(mutant: Mutant, name: str) -> None:
    """It matches no module either, which is then no news: no CK306."""
    with coverage(mutant[30]) as manifest:
        lost, manifest["dropped_layers"][0] = manifest["dropped_layers"][0], name
    mutant.expect("CK303", mutant[30], in_manifest(mutant[30], lost, name))


@pytest.mark.parametrize(
    "change", [{"top_percent": 40}, {"coverage_fraction": 0.4}, {"top_percent": 3.0}]
)
def test_ck304_fires(mutant: Mutant, change: dict[str, float]) -> None:
    with document(coverage_path(mutant[30])) as manifest:
        manifest.update(change)
    mutant.expect("CK304", mutant[30], in_manifest(mutant[30], None, None, None))


def test_ck304_fires_on_the_name(mutant: Mutant) -> None:
    mutant[30].rename(mutant.root / mutant[30].name.replace("top30", "top70"))
    found = mutant.check(with_base=True).findings
    assert [(f.code, f.schemes) for f in found if f.code != "CK406"] == [
        ("CK304", (mutant[70].name,))
    ]


def test_ck304_clean_with_a_rounded_fraction(mutant: Mutant) -> None:
    with document(coverage_path(mutant[30])) as manifest:
        manifest["coverage_fraction"] = 0.3004
    assert mutant.new() == []


def test_ck305_fires(mutant: Mutant) -> None:
    """top50 takes another recipe than the ranking says; tensors and configs follow it."""
    lost, got = SELECTED, DROPPED
    with coverage(mutant[50]) as manifest:
        selected, dropped = manifest["selected_layers"], manifest["dropped_layers"]
        selected[selected.index(recipe(lost))] = recipe(got)
        dropped[dropped.index(recipe(got))] = recipe(lost)
    graft(mutant[50], lost, mutant.base)
    graft(mutant[50], got, mutant[100])
    with excluded(mutant[50]) as modules:
        modules.remove("model.layers.5.mlp*")
        modules += [lost, "model.layers.5.mlp.gate_proj", "model.layers.5.mlp.up_proj"]
    mutant.expect("CK305", mutant[50], [Location(module=lost)])


def rename_recipes(path: Path, new: str) -> None:
    path.write_text(path.read_text().replace(recipe(DROPPED), new))


def test_ck306_fires(mutant: Mutant) -> None:
    """Without the baseline's ranking, only the checkpoint can say that it has no such layer."""
    baseline_path(mutant[30]).unlink()
    mutant.settle()
    unknown = "language_model.layers.99.mlp.down_proj.quant_recipe"
    rename_recipes(coverage_path(mutant[30]), unknown)
    mutant.expect("CK306", mutant[30], in_manifest(mutant[30], unknown))


def test_ck306_fires_for_the_manifests_of_another_model(mutant: Mutant) -> None:
    unknown = "language_model.layers.99.mlp.down_proj.quant_recipe"
    for path in mutant.root.glob("*/layer-sensitivity/*"):
        rename_recipes(path, unknown)
    found = {(f.code, f.schemes) for f in mutant.new() if f.code != "CK302"}
    assert found == {("CK306", (mutant[percent].name,)) for percent in SUBSETS}
    # top100 quantizes the layer, which its manifest now does not name.
    assert [f.schemes for f in mutant.new() if f.code == "CK302"] == [(mutant[100].name,)]


def test_ck306_clean_behind_an_unreadable_shard(mutant: Mutant) -> None:
    """What an unreadable shard holds is unknown: nothing behind it is reported missing."""
    _, second = split(mutant[30])
    (mutant[30] / second).unlink()
    (mutant[30] / second).symlink_to(second)
    report = mutant.check(with_base=True)
    assert [f for f in report.findings if f.severity != "info"] == []
    assert [item.path for item in report.unread] == [f"{mutant[30].name}/{second}"]
    assert ckptdiff.exit_code(report) == 2


def test_ck307_fires(mutant: Mutant) -> None:
    shutil.rmtree(mutant[30] / "layer-sensitivity")
    mutant.expect("CK307", mutant[30])


def swap(entries: list[Any]) -> tuple[str, str]:
    entries[3], entries[4] = entries[4], entries[3]
    return entries[3]["name"], entries[4]["name"]


def test_ck308_fires(mutant: Mutant) -> None:
    path = baseline_path(mutant[30])
    with document(path) as search:
        moved = swap(search["sensitivity_ranking"])
    name = path.relative_to(mutant[30]).as_posix()
    places = [Location(module=module, shard=name) for module in moved]
    mutant.expect("CK308", mutant[30], places)


def test_ck309_fires(mutant: Mutant) -> None:
    other = coverage_path(mutant[50])
    places = in_manifest(mutant[30], None)
    shutil.copy(other, mutant[30] / "layer-sensitivity")
    places.append(Location(shard=f"layer-sensitivity/{other.name}"))
    mutant.expect("CK309", mutant[30], places)


def test_another_algorithm_in_both_configs_is_another_family(mutant: Mutant) -> None:
    """CK305 and CK308 compare within a family, so the fault is CK401's alone."""
    with quantization(mutant[30]) as parts:
        for part in parts:
            part["quant_algo"] = "NVFP4"
    assert [f.code for f in mutant.new()] == ["CK401"]
