"""A sweep whose author wants it to pass: every trick that worked once must not work again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from build import (
    Spec,
    SweepSpec,
    base_tensors,
    fp8_tensors,
    write_json,
    write_scheme,
    write_shard,
    write_weights,
)
from command import run

import ckptdiff
from ckptdiff.records.report import CheckReport

SPEC = SweepSpec()
TOP30 = SPEC.scheme(30)


def errors(report: CheckReport) -> set[str]:
    return {f.code for f in report.findings if f.severity == "error"}


def edit(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    write_json(path, document)


def make_foreign(scheme: Path) -> None:
    """Claim that another exporter made it, whose formats are not judged."""
    (scheme / "hf_quant_config.json").unlink()
    edit(
        scheme / "config.json",
        lambda d: d["quantization_config"].update(quant_method="compressed-tensors"),
    )


def test_decoys_of_another_exporter_do_not_hide_a_weight(bug: Path) -> None:
    tensors = fp8_tensors(SPEC.selected(100))
    decoys = {
        name.replace(".weight", ".qweight"): Spec("BF16", (0, 0), name)
        for name in tensors
        if name.endswith("_proj.weight")
    }
    write_shard(bug / SPEC.scheme(10) / "model.safetensors", tensors | decoys)
    make_foreign(bug / SPEC.scheme(10))
    report = ckptdiff.check(bug)
    assert "CK302" in errors(report)
    assert SPEC.scheme(10) not in report.verdict.safe


def test_values_are_judged_whoever_made_them(sweep: Path) -> None:
    tensors = fp8_tensors(SPEC.selected(30))
    scale = next(name for name in tensors if name.endswith("weight_scale"))
    tensors[scale] = Spec("F32", (), "nan", b"\xff\xff\xff\xff")
    write_shard(sweep / TOP30 / "model.safetensors", tensors)
    make_foreign(sweep / TOP30)
    assert "CK203" in errors(ckptdiff.check(sweep))


def test_what_is_not_judged_is_not_safe(sweep: Path) -> None:
    make_foreign(sweep / TOP30)
    report = ckptdiff.check(sweep)
    assert TOP30 not in report.verdict.safe
    assert "formats of compressed-tensors are not judged" in report.verdict.sentence


def test_a_claim_of_awq_does_not_excuse_other_norms(sweep: Path) -> None:
    tensors = fp8_tensors(SPEC.selected(30))
    tensors["model.norm.weight"] = Spec("BF16", (16,), "another norm")
    write_shard(sweep / TOP30 / "model.safetensors", tensors)
    layers = {"quantized_layers": {"nothing": {"quant_algo": "NVFP4_AWQ"}}}
    edit(sweep / TOP30 / "config.json", lambda d: d["quantization_config"].update(layers))
    edit(sweep / TOP30 / "hf_quant_config.json", lambda d: d["quantization"].update(layers))
    assert "CK601" in errors(ckptdiff.check(sweep))


def renamed(tensors: dict[str, Spec], old: str, new: str) -> dict[str, Spec]:
    return {name.replace(old, new): spec for name, spec in tensors.items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.layers.1.", "layers.1."),
        ("model.norm.", "model.language_model.norm."),
        ("model.layers.0.input", "model.language_model.layers.0.input"),
    ],
)
def test_a_renamed_tensor_is_not_the_same(sweep: Path, old: str, new: str) -> None:
    tensors = renamed(fp8_tensors(SPEC.selected(30)), old, new)
    write_shard(sweep / TOP30 / "model.safetensors", tensors)
    report = ckptdiff.check(sweep)
    assert errors(report) == {"CK113"}
    assert TOP30 not in report.verdict.safe


def test_a_tensor_with_the_suffix_of_a_recipe_is_another(sweep: Path) -> None:
    tensors = renamed(fp8_tensors(SPEC.selected(30)), "norm.weight", "norm.weight.quant_recipe")
    write_shard(sweep / TOP30 / "model.safetensors", tensors)
    assert errors(ckptdiff.check(sweep)) >= {"CK602", "CK603"}


def test_a_lock_pins_names(sweep: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert run("hash", sweep / TOP30, "--lock", lock).code == 0
    tensors = renamed(fp8_tensors(SPEC.selected(30)), "model.", "model.language_model.")
    write_shard(sweep / TOP30 / "model.safetensors", tensors)
    assert run("hash", sweep / TOP30, "--verify", lock).code == 1


def test_a_lock_that_was_edited_locks_nothing(sweep: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    run("hash", sweep / TOP30, "--lock", lock)
    lines = [line for line in lock.read_text().splitlines() if "norm" not in line]
    lock.write_text("\n".join(lines) + "\n")
    done = run("hash", sweep / TOP30, "--verify", lock)
    assert done.code == 2
    assert "contradicts itself" in done.err


def test_a_whole_file_beside_an_index_is_another_model(tmp_path: Path) -> None:
    from build import write_sweep

    root = write_sweep(tmp_path, SweepSpec(shards=2))
    write_shard(root / TOP30 / "model.safetensors", fp8_tensors(SPEC.selected(100)))
    report = ckptdiff.check(root)
    assert errors(report) == {"CK114"}
    assert TOP30 not in report.verdict.safe


def test_codes_without_a_config_pass_for_weights(sweep: Path) -> None:
    (sweep / TOP30 / "hf_quant_config.json").unlink()
    edit(sweep / TOP30 / "config.json", lambda d: d.pop("quantization_config"))
    report = ckptdiff.check(sweep)
    assert errors(report) == {"CK401"}
    # Such a scheme is no base either, although its configs look like one.
    assert report.base is not None and report.base.id == "../base"


def test_junk_in_a_quantized_module_is_extra(sweep: Path) -> None:
    tensors = fp8_tensors(SPEC.selected(30))
    tensors[f"{SPEC.selected(30)[0]}.junk"] = Spec("F32", (2,), "junk")
    write_shard(sweep / TOP30 / "model.safetensors", tensors)
    assert errors(ckptdiff.check(sweep)) == {"CK603"}


def test_nothing_is_safe_by_rules_that_did_not_run(bug: Path) -> None:
    for options in ({"select": ["CK4"]}, {"ignore": ["CK3", "CK5"]}, {"hashes": False}):
        report = ckptdiff.check(bug, **options)  # type: ignore[arg-type]
        assert set(report.verdict.safe) <= {SPEC.scheme(100)}
    assert "by the rules that ran" in ckptdiff.check(bug, select=["CK4"]).verdict.sentence
    assert "findings ignored" in ckptdiff.check(bug, ignore=["CK3", "CK5"]).verdict.sentence


def test_copies_without_manifests_are_not_safe(bug: Path) -> None:
    for folder in bug.glob("*/layer-sensitivity"):
        shutil.rmtree(folder)
    assert ckptdiff.check(bug).verdict.safe == ()


@pytest.mark.parametrize("target", ["base/report.json", "quantized/.hidden/x/report.json"])
def test_no_report_is_written_into_a_checkpoint(sweep: Path, target: str) -> None:
    shutil.copytree(sweep / TOP30, sweep / ".hidden" / "x")
    path = sweep.parent / target
    assert run("check", sweep, "-o", path).code == 2
    assert not path.exists()


def test_no_lock_is_written_over_anything_else(sweep: Path, tmp_path: Path) -> None:
    weights = sweep / SPEC.scheme(10) / "model.safetensors"
    before = weights.read_bytes()
    assert run("hash", sweep / TOP30, "--lock", weights).code == 2
    notes = tmp_path / "notes"
    notes.write_text("mine")
    assert run("hash", sweep / TOP30, "--lock", notes).code == 2
    assert (weights.read_bytes(), notes.read_text()) == (before, "mine")


def test_without_a_home_nothing_is_written_where_we_are(sweep: Path) -> None:
    here = sweep / TOP30
    before = sorted(here.iterdir())
    assert run("check", ".", cwd=here, env={"HOME": "", "XDG_CACHE_HOME": ""}).code == 0
    assert sorted(here.iterdir()) == before


def test_a_fifo_in_place_of_the_cache_hangs_nobody(sweep: Path, cache_home: Path) -> None:
    (cache_home / "ckptdiff").mkdir()
    os.mkfifo(cache_home / "ckptdiff" / "results.sqlite")
    assert run("check", sweep).code == 0


def test_a_name_cannot_forge_a_line(sweep: Path) -> None:
    for padding in range(40):
        forged = f"top30 {'x' * padding} PASS: all of them are safe to use and no fault found"
        write_scheme(sweep / forged, fp8_tensors(SPEC.selected(10)))
        lines = run("check", sweep).text.splitlines()
        assert not any(line.startswith("PASS: all of them") for line in lines)
        shutil.rmtree(sweep / forged)


def test_a_layer_number_of_5000_digits(sweep: Path) -> None:
    tensors = base_tensors() | {f"model.layers.{'9' * 5000}.x.weight": Spec("BF16", (2, 2), "x")}
    write_shard(sweep.parent / "base" / "model.safetensors", tensors)
    assert run("check", sweep, "--json").codes >= {"CK602"}


def test_what_lies_too_deep_was_not_looked_at(sweep: Path) -> None:
    deep = sweep / Path(*"abcdefghijklmnopqrst")
    deep.parent.mkdir(parents=True)
    shutil.move(sweep / TOP30, deep)
    report = ckptdiff.check(sweep)
    assert ckptdiff.exit_code(report) == 2


@pytest.mark.parametrize("name", ["adapter_model_top30.safetensors", "consolidated.safetensors"])
def test_a_directory_is_judged_whatever_its_name(sweep: Path, name: str) -> None:
    (sweep / TOP30).rename(sweep / name)
    assert name in {row.id for row in ckptdiff.check(sweep).schemes}


@pytest.mark.timeout(60)
def test_long_lists_take_no_long_time(tmp_path: Path) -> None:
    scheme = write_scheme(tmp_path / "q" / "x", fp8_tensors(SPEC.selected(30)))
    many = [f"model.layers.{n}.mlp.x*" for n in range(20_000)]
    edit(scheme / "config.json", lambda d: d["quantization_config"].update(ignore=many))
    edit(scheme / "hf_quant_config.json", lambda d: d["quantization"].update(exclude_modules=many))
    index = {f"t{n}.weight": f"model-{n}.safetensors" for n in range(50_000)}
    other = tmp_path / "q" / "y"
    other.mkdir()
    write_json(other / "model.safetensors.index.json", {"weight_map": index})
    assert "CK103" in errors(ckptdiff.check(tmp_path / "q"))


@pytest.mark.timeout(60)
def test_twenty_thousand_experts_each_ranked(tmp_path: Path) -> None:
    from build import coverage_manifest

    experts = [f"model.layers.0.mlp.experts.{n}.up_proj" for n in range(20_000)]
    path = tmp_path / "q" / "top100"
    path.mkdir(parents=True)
    write_weights(path, {f"{name}.weight": Spec("BF16", (0, 2), name) for name in experts})
    manifest = coverage_manifest("top100", 100, [f"{name}.quant_recipe" for name in experts])
    write_json(path / "layer-sensitivity" / "top100_coverage_from_baseline.json", manifest)
    assert errors(ckptdiff.check(tmp_path / "q")) == {"CK301"}


@pytest.mark.parametrize(
    "options",
    [
        {"require": ["foo"]},
        {"fail_on": "info"},
        {"expect": -1},
        {"jobs": 0},
        {"select": "CK501"},
        {"select": ["CK999"]},
        {"select": ["CK207"]},
    ],
)
def test_a_gate_with_a_typo_does_not_pass(sweep: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ckptdiff.CkptdiffError):
        ckptdiff.check(sweep, **options)


def test_several_roots_are_one_document(sweep: Path, tmp_path: Path) -> None:
    done = run("check", sweep, sweep / TOP30, "--json")
    assert [report["root"] for report in json.loads(done.out)] == [str(sweep), str(sweep / TOP30)]
    missing = run("check", sweep, tmp_path / "missing")
    assert missing.code == 2
    assert "4 schemes, no fault found" in missing.text
    assert "does not exist" in missing.err
