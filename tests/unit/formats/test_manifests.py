"""Baseline and coverage manifests, in every variant that producers write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from build import Spec, baseline_manifest, coverage_manifest, recipes, write_scheme

from ckptdiff.analysis.coverage import coverage_of
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.formats.documents import Misfit, parse_object
from ckptdiff.formats.manifests import parse_baseline, parse_coverage
from ckptdiff.records.checkpoint import Defect


def qwen2_5_vl_3b() -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """The recipes of a real 3B manifest (275 of them) and the modules they stand for."""
    ranking, modules = [], {}
    for n in range(36):
        layer = f"language_model.layers.{n}"
        disk = f"model.layers.{n}"
        for leader, leaves in (
            ("self_attn.q_proj", ("q_proj", "k_proj", "v_proj")),
            ("self_attn.o_proj", ("o_proj",)),
            ("mlp.gate_proj", ("gate_proj", "up_proj")),
            ("mlp.down_proj", ("down_proj",)),
        ):
            ranking.append(f"{layer}.{leader}.quant_recipe")
            part = leader.partition(".")[0]
            modules |= {f"{disk}.{part}.{leaf}": (4, 4) for leaf in leaves}
    for n in range(32):
        block = f"visual.blocks.{n}"
        for leader, names in (
            ("attn.qkv", ("attn.qkv",)),
            ("attn.proj", ("attn.proj",)),
            ("mlp.gate_proj", ("mlp.gate_proj", "mlp.up_proj")),
            ("mlp.down_proj", ("mlp.down_proj",)),
        ):
            ranking.append(f"{block}.{leader}.quant_recipe")
            modules |= {f"{block}.{name}": (4, 4) for name in names}
    for n in (0, 2):
        ranking.append(f"visual.merger.mlp.{n}.quant_recipe")
        modules[f"visual.merger.mlp.{n}"] = (4, 4)
    ranking.append("visual.patch_embed.proj.quant_recipe")
    modules["visual.patch_embed.proj"] = (4, 3, 2, 2, 2)
    return ranking, modules


def test_a_real_manifest_expands_to_its_414_linears(tmp_path: Any) -> None:
    ranking, modules = qwen2_5_vl_3b()
    assert (len(ranking), len(modules)) == (275, 415)
    tensors = {f"{name}.weight": Spec("BF16", shape, name) for name, shape in modules.items()}
    path = write_scheme(
        tmp_path / "top10",
        tensors,
        manifest=coverage_manifest("top10", 10, ranking),
        baseline=baseline_manifest(ranking),
    )
    checkpoint = read_checkpoint(path, "top10")
    assert len(checkpoint.coverage[0].selected) == 28
    coverage = coverage_of(checkpoint)
    assert coverage.declared is not None
    assert coverage.declared.recipes_total == 275
    assert coverage.declared.unknown == ()
    assert len(coverage.scope) == 414
    assert coverage.effective_bits == 16.0


def test_coverage_manifest() -> None:
    found = parse_coverage(coverage_manifest("top30", 30, recipes()), "x.json")
    assert (found.top_percent, found.fraction, found.total) == (30.0, 0.3, 16)
    assert (found.num_selected, found.num_dropped) == (5, 11)
    assert found.selected + found.dropped == tuple(recipes())


def test_baseline_manifest() -> None:
    found = parse_baseline(baseline_manifest(recipes()), "x.json")
    assert found.ranking == tuple(recipes())
    assert found.effective_bits == 10.99
    assert all(recipe.eligible for recipe in found.recipes.values())


def test_ranking_from_ranks_when_the_list_is_missing() -> None:
    manifest = baseline_manifest(recipes())
    del manifest["sensitivity_ranking"]
    assert parse_baseline(manifest, "x").ranking == tuple(recipes())


def test_only_a_none_format_is_not_eligible() -> None:
    manifest: dict[str, Any] = baseline_manifest(recipes())
    manifest["layer_sensitivity"][recipes()[0]]["formats"] = ["NONE(effective-bits: 16.0)"]
    found = parse_baseline(manifest, "x")
    assert [name for name, recipe in found.recipes.items() if not recipe.eligible] == recipes()[:1]


@pytest.mark.parametrize(
    "change",
    [
        {"selected_layers": "layers.0"},
        {"selected_layers": [1, 2]},
        {"dropped_layers": {"a": 1}},
        {"top_percent": "10"},
        {"top_percent": True},
        {"coverage_fraction": []},
        {"num_layers_total": 1.5},
        {"num_layers_total": 10**400},
        {"num_layers_selected": "5"},
        {"scheme_name": 5},
        {"baseline_manifest": ["x"]},
    ],
)
def test_a_coverage_field_of_the_wrong_type_is_a_misfit(change: dict[str, Any]) -> None:
    with pytest.raises(Misfit, match=next(iter(change))):
        parse_coverage(coverage_manifest("top30", 30, recipes()) | change, "x.json")


def test_a_coverage_manifest_without_a_selection_is_a_misfit() -> None:
    with pytest.raises(Misfit, match="selected_layers"):
        parse_coverage({"top_percent": 10}, "x.json")


@pytest.mark.parametrize(
    "change",
    [
        {"layer_sensitivity": 5},
        {"layer_sensitivity": [5]},
        {"layer_sensitivity": {"a": 5}},
        {"layer_sensitivity": {"a": {"formats": "NONE"}}},
        {"layer_sensitivity": {"a": {"rank": "first"}}},
        {"sensitivity_ranking": {"a": 1}},
        {"sensitivity_ranking": [{"importance": 1.0}]},
        {"scheme": []},
        {"autoquant_state": {"constraints": 5}},
        {"autoquant_state": {"constraints": {"effective_bits": "11"}}},
    ],
)
def test_a_baseline_field_of_the_wrong_type_is_a_misfit(change: dict[str, Any]) -> None:
    with pytest.raises(Misfit):
        parse_baseline(baseline_manifest(recipes()) | change, "x.json")


def test_an_empty_baseline_is_a_misfit() -> None:
    with pytest.raises(Misfit):
        parse_baseline({"scheme": {"name": "x"}}, "x.json")


@pytest.mark.parametrize(
    ("raw", "offset"),
    [
        (b"", 0),
        (b"{", 1),
        (b'{"a": nope}', 6),
        (b"\xff{}", 0),
        ('{"ä": nope}'.encode(), 7),
        (b"[]", 0),
        (b"[" * 200_000, None),
        (b'{"a": ' + b"1" * 5_000 + b"}", None),
    ],
)
def test_what_is_no_object_is_a_defect_with_its_place(raw: bytes, offset: int | None) -> None:
    found = parse_object(raw, "x.json")
    assert isinstance(found, Defect)
    assert (found.kind, found.file, found.offset) == ("malformed", "x.json", offset)


def test_a_byte_order_mark_is_no_defect() -> None:
    assert parse_object(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode(), "x") == {"a": 1}
