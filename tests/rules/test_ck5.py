"""CK5, across schemes: the founding bug and its healthy look-alikes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from build import (
    BASELINE,
    SweepSpec,
    baseline_manifest,
    check,
    copy_weights,
    fp8_tensors,
    members,
    recipes,
    write_scheme,
    write_sweep,
)

import ckptdiff

SPEC = SweepSpec()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sweep(tmp_path)


def test_all_ck5_clean(root: Path) -> None:
    assert check(root).findings == ()


def test_ck501_fires_on_the_founding_bug(root: Path) -> None:
    """A baseline under a bits budget, copied under every name."""
    budget = [module for recipe in recipes()[1::2] for module in members(recipe)]
    baseline = write_scheme(
        root / f"{BASELINE}_coco2017", fp8_tensors(budget), baseline=baseline_manifest(recipes())
    )
    for percent in SPEC.percents:
        for path in baseline.glob("*.*"):
            shutil.copy(path, root / SPEC.scheme(percent))
    report = check(root)
    codes = [f.code for f in report.findings]
    assert codes.count("CK501") == 1
    assert set(codes) == {"CK501", "CK301", "CK302"}
    group = next(f for f in report.findings if f.code == "CK501")
    assert set(group.schemes) == {baseline.name, *(SPEC.scheme(p) for p in SPEC.percents)}
    assert report.verdict.sentence == (
        "5 schemes carry one set of weights: their manifests declare 10-100 % of 16 recipes, "
        f"their tensors hold {len(budget)} of 28 modules"
    )
    # The baseline claims what it holds, so it stays; none of the copies does.
    assert report.verdict.safe == (baseline.name,)
    assert len(report.identity) == 1


def test_ck501_spares_the_member_that_follows_its_manifest(root: Path) -> None:
    copy_weights(root, 50, [10, 30, 100])
    report = check(root)
    group = next(f for f in report.findings if f.code == "CK501")
    assert len(group.schemes) == 4
    assert report.verdict.safe == (SPEC.scheme(50),)
    assert {row.id: row.status for row in report.schemes}[SPEC.scheme(50)] == "ok"


def test_ck501_does_not_depend_on_sharding(root: Path, tmp_path: Path) -> None:
    sharded = write_sweep(tmp_path / "other", SweepSpec(shards=3)) / SPEC.scheme(50)
    target = root / SPEC.scheme(100)
    (target / "model.safetensors").unlink()
    for path in sharded.glob("model*"):
        shutil.copy(path, target)
    assert "CK501" in {f.code for f in check(root).findings}


def test_ck501_fires_for_hard_links(root: Path) -> None:
    target = root / SPEC.scheme(30) / "model.safetensors"
    target.unlink()
    os.link(root / SPEC.scheme(50) / "model.safetensors", target)
    assert "CK501" in {f.code for f in check(root).findings}


def test_ck501_clean_when_one_byte_differs(root: Path) -> None:
    copy_weights(root, 50, [30])
    path = root / SPEC.scheme(30) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "CK501" not in {f.code for f in check(root).findings}


def test_without_hashes_the_headers_still_prove_it(root: Path) -> None:
    copy_weights(root, 50, [10, 30, 100])
    report = check(root, hashes=False)
    assert ckptdiff.exit_code(report) == 1
    assert "4 schemes quantize the same layers" in report.verdict.sentence
    assert {skip.code for skip in report.skipped} >= {"CK501", "CK502", "CK503"}


def test_ck502_fires(root: Path) -> None:
    shutil.copytree(root / SPEC.scheme(30), root / f"{SPEC.scheme(30)}_v2")
    (finding,) = check(root).findings
    assert (finding.code, finding.severity) == ("CK502", "info")
    assert finding.schemes == (SPEC.scheme(30), f"{SPEC.scheme(30)}_v2")


def test_ck502_fires_without_manifests(root: Path) -> None:
    """Nobody can say whether they should differ; the sentence mentions them all the same."""
    copy_weights(root, 50, [10, 30, 100])
    for folder in root.glob("*/layer-sensitivity"):
        shutil.rmtree(folder)
    report = check(root)
    assert {f.code for f in report.findings} == {"CK307", "CK502"}
    assert "4 of them carry one set of weights" in report.verdict.sentence


def test_ck503_fires_on_swapped_weights(root: Path) -> None:
    one, other = (root / SPEC.scheme(p) / "model.safetensors" for p in (10, 50))
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    report = check(root)
    assert [(f.code, f.schemes) for f in report.findings] == [
        ("CK503", (SPEC.scheme(10),)),
        ("CK503", (SPEC.scheme(50),)),
    ]
    assert SPEC.scheme(50) in report.findings[0].message


def test_ck503_leaves_members_of_an_identity_group_alone(root: Path) -> None:
    copy_weights(root, 50, [10, 30])
    assert "CK503" not in {f.code for f in check(root).findings}
