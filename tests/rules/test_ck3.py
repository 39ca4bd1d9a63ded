"""CK3, coverage: what manifests say against what tensors hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from build import (
    BASELINE,
    Spec,
    SweepSpec,
    base_tensors,
    baseline_manifest,
    check,
    coverage_manifest,
    fp8_tensors,
    members,
    recipes,
    write_json,
    write_scheme,
    write_shard,
    write_sweep,
)

import ckptdiff
from ckptdiff.records.finding import Finding

SPEC = SweepSpec()
TOP30 = SPEC.scheme(30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sweep(tmp_path)


def findings(root: Path, *codes: str) -> list[Finding]:
    """The findings of a sweep; their codes must be exactly `codes`, in order."""
    report = check(root)
    assert [f.code for f in report.findings] == list(codes)
    return list(report.findings)


def edit_coverage(scheme: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    (path,) = scheme.glob("layer-sensitivity/*_coverage_from_baseline.json")
    manifest = json.loads(path.read_text())
    edit(manifest)
    write_json(path, manifest)


def exclude(scheme: Path, module: str) -> None:
    """Leave `module` out in both configs."""
    for name in ("config.json", "hf_quant_config.json"):
        document = json.loads((scheme / name).read_text())
        part = document.get("quantization_config") or document["quantization"]
        part["ignore" if name == "config.json" else "exclude_modules"].append(module)
        write_json(scheme / name, document)


def write_modules(scheme: Path, modules: list[str]) -> None:
    write_shard(scheme / "model.safetensors", fp8_tensors(modules))


def test_all_ck3_clean(root: Path) -> None:
    findings(root)


def test_ck301_fires(root: Path) -> None:
    missing = "model.layers.2.self_attn.o_proj"
    write_modules(root / TOP30, [m for m in SPEC.selected(30) if m != missing])
    (finding,) = findings(root, "CK301")
    assert finding.schemes == (TOP30,)
    assert [place.module for place in finding.locations] == [missing]
    assert (finding.locations[0].expected, finding.locations[0].actual) == ("quantized", "BF16")
    assert finding.message.startswith("1 of 5 selected modules")


def test_ck301_fires_for_a_member_of_a_group(root: Path) -> None:
    """`q_proj` selects q, k and v: one of them left out is a fault."""
    write_modules(
        root / SPEC.scheme(100),
        [m for m in SPEC.selected(100) if m != "model.layers.1.self_attn.v_proj"],
    )
    (finding,) = findings(root, "CK301")
    assert [place.module for place in finding.locations] == ["model.layers.1.self_attn.v_proj"]


def test_ck302_fires(root: Path) -> None:
    extra = "model.layers.0.mlp.gate_proj"
    write_modules(root / TOP30, [*SPEC.selected(30), extra])
    (finding,) = findings(root, "CK302")
    assert [place.module for place in finding.locations] == [extra]
    assert (finding.locations[0].expected, finding.locations[0].actual) == (
        "unquantized",
        "F8_E4M3",
    )


def test_ck302_fires_for_what_the_manifest_does_not_name(root: Path) -> None:
    """A module outside the ranking is not selected either."""
    name = "visual.merger.mlp.0"
    merger = Spec("BF16", (8, 8), "merger")
    write_shard(
        root.parent / "base" / "model.safetensors", base_tensors() | {f"{name}.weight": merger}
    )
    for percent in SPEC.percents:
        tensors = fp8_tensors(SPEC.selected(percent)) | {f"{name}.weight": merger}
        if percent == 30:
            tensors[f"{name}.weight"] = Spec("F8_E4M3", (8, 8), "merger")
            tensors[f"{name}.weight_scale"] = Spec("F32", (), "scale")
            tensors[f"{name}.input_scale"] = Spec("F32", (), "scale")
        write_shard(root / SPEC.scheme(percent) / "model.safetensors", tensors)
        exclude(root / SPEC.scheme(percent), name)
    (finding,) = findings(root, "CK302")
    assert [place.module for place in finding.locations] == ["visual.merger.mlp.0"]


@pytest.mark.parametrize("key", ["num_layers_selected", "num_layers_dropped", "num_layers_total"])
def test_ck303_fires_on_counts(root: Path, key: str) -> None:
    edit_coverage(root / TOP30, lambda m: m.update({key: m[key] + 1}))
    (finding,) = findings(root, "CK303")
    assert len(finding.locations) == 1
    assert key in (finding.locations[0].actual or "")


def test_ck303_fires_on_a_recipe_in_both_lists(root: Path) -> None:
    both = recipes()[0]

    def edit(manifest: dict[str, Any]) -> None:
        manifest["dropped_layers"].append(both)
        manifest["num_layers_dropped"] += 1
        manifest["num_layers_total"] += 1

    edit_coverage(root / TOP30, edit)
    (finding,) = findings(root, "CK303")
    assert [(p.module, p.actual) for p in finding.locations] == [(both, "selected and dropped")]


def test_ck303_fires_on_a_recipe_that_is_not_listed(root: Path) -> None:
    lost = recipes()[-1]

    def edit(manifest: dict[str, Any]) -> None:
        manifest["dropped_layers"].remove(lost)
        manifest["num_layers_dropped"] -= 1
        manifest["num_layers_total"] -= 1

    edit_coverage(root / TOP30, edit)
    (finding,) = findings(root, "CK303")
    assert [(p.module, p.actual) for p in finding.locations] == [(lost, "not listed")]


@pytest.mark.parametrize(
    "change", [{"top_percent": 40}, {"coverage_fraction": 0.4}, {"top_percent": 3.0}]
)
def test_ck304_fires(root: Path, change: dict[str, float]) -> None:
    edit_coverage(root / TOP30, lambda m: m.update(change))
    (finding,) = findings(root, "CK304")
    assert finding.severity == "warning"
    assert len(finding.locations) == 3


def test_ck304_fires_on_the_name(root: Path) -> None:
    (root / TOP30).rename(root / SPEC.scheme(70))
    (finding,) = findings(root, "CK304")
    assert finding.schemes == (SPEC.scheme(70),)


def test_ck304_clean_with_a_rounded_fraction(root: Path) -> None:
    edit_coverage(root / TOP30, lambda m: m.update(coverage_fraction=0.3004))
    findings(root)


def other_ranking() -> list[str]:
    """Scheme 50 along another order: its own manifest and tensors agree with each other."""
    return recipes()[-8:] + recipes()[:-8]


def test_ck305_fires(root: Path) -> None:
    scheme = root / SPEC.scheme(50)
    other = SweepSpec(ranking=tuple(other_ranking()))
    shutil.rmtree(scheme)
    write_scheme(
        scheme,
        fp8_tensors(other.selected(50)),
        manifest=coverage_manifest(scheme.name, 50, other_ranking()),
        baseline=baseline_manifest(recipes()),
    )
    (finding,) = findings(root, "CK305")
    assert finding.schemes == (scheme.name,)
    assert {place.module for place in finding.locations} == set(SPEC.selected(30))


def test_ck306_fires(root: Path) -> None:
    unknown = "layers.99.mlp.down_proj.quant_recipe"

    def edit(manifest: dict[str, Any]) -> None:
        manifest["dropped_layers"].append(unknown)
        manifest["num_layers_dropped"] += 1
        manifest["num_layers_total"] += 1

    edit_coverage(root / TOP30, edit)
    ranking = [*recipes(), unknown]
    for folder in root.glob("*/layer-sensitivity"):
        write_json(folder / f"{BASELINE}_quant_manifest.json", baseline_manifest(ranking))
    codes = {f.code: f for f in check(root, select=["CK306"]).findings}
    assert [place.module for place in codes["CK306"].locations] == [unknown]


def test_ck306_clean_behind_an_unreadable_shard(root: Path, tmp_path: Path) -> None:
    """What an unreadable shard holds is unknown: nothing behind it is reported missing."""
    sharded = write_sweep(tmp_path / "s", SweepSpec(shards=2))
    shard = sharded / TOP30 / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(shard.name)
    report = check(sharded)
    assert report.findings == ()
    assert [item.path for item in report.unread] == [f"{TOP30}/{shard.name}"]
    assert ckptdiff.exit_code(report) == 2


def test_ck307_fires(root: Path) -> None:
    write_scheme(root / "other", fp8_tensors(members(recipes()[5])))
    (finding,) = findings(root, "CK307")
    assert finding.severity == "info"
    assert finding.schemes == ("other",)


def test_ck307_clean_for_a_manifest_that_cannot_be_read(root: Path) -> None:
    """That is CK101: saying that there is none would be wrong."""
    (path,) = (root / TOP30 / "layer-sensitivity").glob("*_coverage_from_baseline.json")
    path.write_text("[]")
    findings(root, "CK101")
