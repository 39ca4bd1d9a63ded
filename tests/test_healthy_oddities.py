"""What is found in real sweeps and is all right: each trap is a case that must stay clean."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from build import (
    BASELINE,
    Spec,
    SweepSpec,
    as_float32,
    base_tensors,
    baseline_manifest,
    check,
    config,
    coverage_manifest,
    fp8_tensors,
    members,
    recipes,
    write_base,
    write_json,
    write_scheme,
    write_shard,
    write_sweep,
)

import ckptdiff
from ckptdiff.records.report import CheckReport


def assert_clean(report: CheckReport) -> CheckReport:
    """Nothing above info, everything read, exit code 0."""
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report.unread == ()
    assert report.verdict.status == "pass"
    assert report.verdict.complete
    assert ckptdiff.exit_code(report) == 0
    assert set(report.verdict.safe) == {row.id for row in report.schemes}
    return report


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sweep(tmp_path)


def scheme(root: Path, percent: int) -> Path:
    return root / SweepSpec().scheme(percent)


def test_plain_sweep(root: Path) -> None:
    report = assert_clean(check(root))
    assert report.findings == ()
    assert [row.identity for row in report.schemes] == ["A", "B", "C", "D"]
    assert report.base is not None and report.base.id == "../base"


def test_sharded_sweep(tmp_path: Path) -> None:
    assert_clean(check(write_sweep(tmp_path, SweepSpec(shards=3))))


def test_several_baseline_manifests_in_one_scheme(root: Path) -> None:
    own = baseline_manifest(recipes()[::-1], name="fp8_of_its_own")
    write_json(scheme(root, 30) / "layer-sensitivity" / "fp8_of_its_own_quant_manifest.json", own)
    report = assert_clean(check(root))
    assert len({row.family for row in report.schemes}) == 1


def test_reexport_beside_the_original_names_the_old_scheme(root: Path) -> None:
    shutil.copytree(scheme(root, 30), root / f"{scheme(root, 30).name}_v2")
    report = assert_clean(check(root))
    assert [f.code for f in report.findings] == ["CK502"]


def test_int8_scheme_whose_coverage_file_carries_an_fp8_name(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, SweepSpec(name="int8_smoothquant_top{percent}"))
    for folder in root.glob("*/layer-sensitivity"):
        (manifest,) = folder.glob("*_coverage_from_baseline.json")
        manifest.rename(folder / "fp8_top_coverage_from_baseline.json")
    assert_clean(check(root))


def test_baseline_dir_that_leads_nowhere(root: Path) -> None:
    manifest = coverage_manifest(SweepSpec().scheme(30), 30, recipes())
    manifest["baseline_dir"] = "/somebody/elses/models/x"
    write_json(
        scheme(root, 30)
        / "layer-sensitivity"
        / f"{scheme(root, 30).name}_coverage_from_baseline.json",
        manifest,
    )
    assert_clean(check(root))


@pytest.mark.parametrize("listed", [True, False])
def test_language_only_run_with_vision_recipes_that_only_have_none(
    tmp_path: Path, listed: bool
) -> None:
    """Other producers leave them out of the coverage manifest, some select them at 100 %."""
    vision = "visual.blocks.0.attn.qkv.quant_recipe"
    ranking = [*recipes(), vision]
    baseline = baseline_manifest(ranking)
    baseline["layer_sensitivity"][vision]["formats"] = ["NONE(effective-bits: 16.0)"]  # type: ignore[index]
    tower = {"visual.blocks.0.attn.qkv.weight": Spec("BF16", (8, 8), "v")}
    write_base(tmp_path / "base", extra=tower)
    chosen = ranking if listed else recipes()
    tensors = fp8_tensors([m for recipe in recipes() for m in members(recipe)]) | tower
    write_scheme(
        tmp_path / "q" / "top100",
        tensors,
        manifest=coverage_manifest("top100", 100, chosen),
        baseline=baseline,
    )
    assert_clean(check(tmp_path / "q"))


def test_ranking_lists_a_tied_lm_head(tmp_path: Path) -> None:
    ranking = (*recipes(), "lm_head.quant_recipe")
    report = assert_clean(check(write_sweep(tmp_path, SweepSpec(ranking=ranking))))
    assert report.schemes[-1].declared is not None
    assert report.schemes[-1].declared.selected == report.schemes[-1].actual.quantized  # type: ignore[union-attr]


def test_per_layer_sensitivity_in_list_form(root: Path) -> None:
    rows = [{"layer": "layers.0.mlp.down_proj", "num_bits": 8, "sensitivity": 1, "size_cost": 2}]
    write_json(scheme(root, 30) / "layer-sensitivity" / "per-layer-sensitivity.json", rows)
    assert_clean(check(root))


def test_layer_sensitivity_as_a_list(root: Path) -> None:
    manifest = baseline_manifest(recipes())
    sensitivity = manifest["layer_sensitivity"]
    assert isinstance(sensitivity, dict)
    manifest["layer_sensitivity"] = [{"name": k, **v} for k, v in sensitivity.items()]
    for folder in root.glob("*/layer-sensitivity"):
        write_json(folder / f"{BASELINE}_quant_manifest.json", manifest)
    assert_clean(check(root))


def test_older_manifests_lack_importance_rank_and_ranking(root: Path) -> None:
    manifest = baseline_manifest(recipes())
    del manifest["sensitivity_ranking"]
    for facts in manifest["layer_sensitivity"].values():  # type: ignore[attr-defined]
        del facts["importance"], facts["rank"]
    for folder in root.glob("*/layer-sensitivity"):
        write_json(folder / f"{BASELINE}_quant_manifest.json", manifest)
    assert_clean(check(root))


def test_convolution_last_in_the_ranking_makes_top100_equal_top90(tmp_path: Path) -> None:
    """An export never packs a convolution, so it stays as it is and top90 is top100."""
    conv = "visual.patch_embed.proj"
    ranking = [*recipes(), f"{conv}.quant_recipe"]
    tensors = fp8_tensors([m for recipe in recipes() for m in members(recipe)])
    weight = {f"{conv}.weight": Spec("BF16", (8, 3, 2, 4, 4), conv)}
    tensors |= weight
    write_base(tmp_path / "base", extra=weight)
    for percent in (94, 100):
        name = f"top{percent}"
        write_scheme(
            tmp_path / "q" / name,
            tensors,
            manifest=coverage_manifest(name, percent, ranking),
            baseline=baseline_manifest(ranking),
        )
    report = assert_clean(check(tmp_path / "q"))
    assert [f.code for f in report.findings] == ["CK502"]
    assert [row.declared.percent for row in report.schemes] == [94, 100]  # type: ignore[union-attr]


def test_several_families_and_the_base_under_one_root(tmp_path: Path) -> None:
    root = write_sweep(tmp_path)
    shutil.move(root.parent / "base", root / "base")
    # An INT8 family along another ranking: nested in itself, not in the FP8 one.
    ranking = recipes()[::-1]
    for percent in (10, 50):
        k = SweepSpec(ranking=tuple(ranking)).selected(percent)
        tensors = fp8_tensors(k)
        for module in k:
            weight = replace(tensors[f"{module}.weight"], dtype="I8")
            tensors[f"{module}.weight"] = weight
            tensors[f"{module}.weight_scale"] = Spec("F32", weight.shape[:1], module)
        name = f"int8_all_layers_top{percent}"
        write_scheme(
            root / "int8" / name,
            tensors,
            algorithm="W8A8_SQ_PER_CHANNEL",
            manifest=coverage_manifest(name, percent, ranking, baseline="int8_all"),
            baseline=baseline_manifest(ranking, name="int8_all"),
        )
        (root / "int8" / name / "layer-sensitivity" / f"{BASELINE}_quant_manifest.json").rename(
            root / "int8" / name / "layer-sensitivity" / "int8_all_quant_manifest.json"
        )
    report = assert_clean(check(root))
    assert report.base is not None and report.base.id == "base"
    assert len({row.family for row in report.schemes}) == 2
    assert len(report.schemes) == 6


def test_adapters_gguf_bin_and_consolidated_weights_beside(root: Path) -> None:
    here = scheme(root, 30)
    write_shard(here / "adapter_model.safetensors", {"lora_A.weight": Spec("BF16", (2, 2), "a")})
    write_shard(here / "consolidated.safetensors", {"x.weight": Spec("BF16", (2, 2), "b")})
    (here / "model.gguf").write_bytes(b"GGUF")
    (here / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (here / "x_autoquant_state.pt").write_bytes(b"\x80\x02")
    (root / "lora").mkdir()
    write_shard(root / "lora" / "adapter_model.safetensors", {"a": Spec("BF16", (2, 2), "a")})
    write_json(root / "lora" / "adapter_config.json", {})
    (root / ".cache").mkdir()
    shutil.copytree(scheme(root, 10), root / "old.broken-1")
    report = assert_clean(check(root))
    assert len(report.schemes) == 4
    passed = {item.path for item in report.passed_over}
    assert {".cache", "old.broken-1", "lora/adapter_model.safetensors"} <= passed
    assert f"{here.name}/model.gguf" in passed


def test_hub_cache_with_shards_linked_out_of_the_folder(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, SweepSpec(shards=2))
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for shard in list(root.glob("*/*.safetensors")):
        blob = blobs / f"{shard.parent.name}-{shard.name}".replace(".", "_")
        shard.rename(blob)
        shard.symlink_to(blob)
    assert_clean(check(root))


def test_tensors_that_only_the_base_has(root: Path) -> None:
    extra = {
        "mtp.fc.weight": Spec("BF16", (16, 16), "mtp"),
        "model.layers.0.self_attn.rotary_emb.inv_freq": Spec("F32", (8,), "freq"),
    }
    write_shard(root.parent / "base" / "model.safetensors", base_tensors() | extra)
    assert_clean(check(root))


def test_rope_parameters_here_and_rope_scaling_there(root: Path) -> None:
    write_json(
        root.parent / "base" / "config.json",
        config() | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    )
    assert_clean(check(root))


def test_float32_base_under_a_bf16_export(root: Path) -> None:
    wide = {name: as_float32(spec) for name, spec in base_tensors().items()}
    write_shard(root.parent / "base" / "model.safetensors", wide)
    report = assert_clean(check(root))
    assert report.base is not None
    assert {f.code for f in report.findings} == {"CK605"}


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.", "model.", ""])
def test_manifests_in_every_spelling(tmp_path: Path, prefix: str) -> None:
    spelled = tuple(prefix + recipe for recipe in recipes())
    root = write_sweep(tmp_path)
    for percent in SweepSpec().percents:
        folder = scheme(root, percent) / "layer-sensitivity"
        name = scheme(root, percent).name
        manifest = coverage_manifest(name, percent, spelled)
        write_json(folder / f"{name}_coverage_from_baseline.json", manifest)
    assert_clean(check(root))


@pytest.mark.parametrize(
    ("leader", "leaves"),
    [
        ("mlp.experts", ("gate_proj", "up_proj", "down_proj")),
        ("mlp.experts.0.gate_proj", ("gate_proj", "up_proj", "down_proj")),
        ("block_sparse_moe.experts.0.w1", ("w1", "w2", "w3")),
    ],
)
def test_experts_stand_for_each_other(tmp_path: Path, leader: str, leaves: tuple[str, ...]) -> None:
    parent = leader.partition(".experts")[0]
    experts = [
        f"model.layers.{n}.{parent}.experts.{e}.{leaf}"
        for n in range(2)
        for e in range(3)
        for leaf in leaves
    ]
    ranking = [f"model.layers.{n}.{leader}.quant_recipe" for n in range(2)]
    plain = {f"{name}.weight": Spec("BF16", (8, 16), name) for name in experts}
    plain["model.layers.0.mlp.gate.weight"] = Spec("BF16", (3, 16), "router")
    write_base(tmp_path / "base", extra=plain)
    for percent, count in ((50, len(experts) // 2), (100, len(experts))):
        tensors = base_tensors() | plain
        for name in experts[:count]:
            tensors[f"{name}.weight"] = Spec("F8_E4M3", (8, 16), name)
            tensors[f"{name}.weight_scale"] = Spec("F32", (), name)
            tensors[f"{name}.input_scale"] = Spec("F32", (), name)
        write_scheme(
            tmp_path / "q" / f"top{percent}",
            tensors,
            manifest=coverage_manifest(f"top{percent}", percent, ranking),
            baseline=baseline_manifest(ranking),
        )
    assert_clean(check(tmp_path / "q"))


def test_baseline_under_a_bits_budget_beside_its_schemes(root: Path) -> None:
    """It ranks everything, quantizes part of it and declares no subset."""
    some = [m for recipe in recipes()[::2] for m in members(recipe)]
    write_scheme(
        root / f"{BASELINE}_coco2017", fp8_tensors(some), baseline=baseline_manifest(recipes())
    )
    report = assert_clean(check(root))
    assert report.findings == ()
    assert {
        skip.reason for skip in report.skipped if skip.scheme.startswith(f"{BASELINE}_coco")
    } == {"it is the baseline of a search and declares no subset"}


def test_k_of_a_producer_that_counts_eligible_recipes(root: Path) -> None:
    """top30 of 16 recipes is 5; a producer that saw 12 eligible ones takes 4."""
    name = scheme(root, 30).name
    manifest = coverage_manifest(name, 30, recipes())
    manifest |= {
        "num_layers_selected": 4,
        "num_layers_dropped": 12,
        "selected_layers": recipes()[:4],
        "dropped_layers": recipes()[4:],
    }
    tensors = fp8_tensors([m for recipe in recipes()[:4] for m in members(recipe)])
    shutil.rmtree(scheme(root, 30))
    write_scheme(
        scheme(root, 30), tensors, manifest=manifest, baseline=baseline_manifest(recipes())
    )
    assert_clean(check(root))


def test_no_manifest_and_no_base_is_a_visible_skip(tmp_path: Path) -> None:
    write_scheme(tmp_path / "q" / "model", fp8_tensors(SweepSpec().selected(30)))
    report = assert_clean(check(tmp_path / "q"))
    assert [f.code for f in report.findings] == ["CK307"]
    assert {skip.code for skip in report.skipped} >= {"CK301", "CK6"}


def test_single_checkpoint_is_a_sweep_of_one(root: Path) -> None:
    report = assert_clean(check(scheme(root, 30)))
    assert [row.id for row in report.schemes] == ["."]
    assert report.schemes[0].declared is not None


def test_full_precision_checkpoint_alone(root: Path) -> None:
    report = assert_clean(check(root.parent / "base"))
    assert [row.id for row in report.schemes] == ["."]
