"""The sentence that is read first, for each kind of ending."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from build import SweepSpec, copy_weights, fp8_tensors, write_scheme, write_shard

import ckptdiff

SPEC = SweepSpec()
TOP30 = SPEC.scheme(30)


def sentence(root: Path, **options: object) -> str:
    return ckptdiff.check(root, **options).verdict.sentence  # type: ignore[arg-type]


def test_healthy(sweep: Path) -> None:
    assert sentence(sweep) == (
        "4 schemes, no fault found: all follow their manifests, no two have the same weights"
    )


def test_healthy_from_headers_alone(sweep: Path) -> None:
    assert sentence(sweep, hashes=False) == (
        "4 schemes, no fault found: all follow their manifests, weights were not compared"
    )


def test_one_scheme(sweep: Path) -> None:
    base = sweep.parent / "base"
    found = "1 scheme, no fault found: it follows its manifest"
    assert sentence(sweep / TOP30, base=base) == found
    assert sentence(sweep / TOP30) == f"{found}, no base to hold it against"


def test_no_manifest_at_all(tmp_path: Path) -> None:
    write_scheme(tmp_path / "q" / "x", fp8_tensors([]))
    assert sentence(tmp_path / "q") == (
        "1 scheme, no fault found: no coverage manifest says what it should quantize"
    )


def test_the_founding_bug(bug: Path) -> None:
    assert sentence(bug) == (
        "4 schemes carry one set of weights: their manifests declare 10-100 % of 16 recipes, "
        "their tensors hold 28 of 28 modules"
    )


def test_the_founding_bug_from_headers_alone(bug: Path) -> None:
    assert sentence(bug, hashes=False).startswith("4 schemes quantize the same layers: their")


def test_two_groups_of_copies(tmp_path: Path) -> None:
    from build import write_sweep

    root = write_sweep(tmp_path, SweepSpec(percents=(10, 30, 50, 70, 100)))
    copy_weights(root, 100, [50, 70])
    copy_weights(root, 10, [30])
    assert sentence(root).endswith("; 1 other group of schemes is copies too")


def test_layers_that_are_not_those_of_the_manifest(sweep: Path) -> None:
    write_shard(sweep / TOP30 / "model.safetensors", fp8_tensors(SPEC.selected(30)[1:]))
    assert sentence(sweep) == (
        f"1 of 4 schemes does not quantize the layers that its manifest declares: {TOP30}"
    )


def test_any_other_error(sweep: Path) -> None:
    os.truncate(sweep / TOP30 / "model.safetensors", 2000)
    assert sentence(sweep) == (
        f"1 of 4 schemes cannot be relied on: {TOP30} (CK102 truncated-shard)"
    )


def test_unread_is_said_after_what_was_found(sweep: Path) -> None:
    path = sweep / TOP30 / "model.safetensors"
    path.unlink()
    path.symlink_to(path.name)
    report = ckptdiff.check(sweep)
    assert not report.verdict.complete
    assert report.verdict.sentence.endswith(
        f"{TOP30}/model.safetensors could not be read (symlink loop), "
        "so this is not the whole truth"
    )
    assert TOP30 not in report.verdict.safe
    assert {row.id: row.status for row in report.schemes}[TOP30] == "unread"
    assert ckptdiff.exit_code(report) == 2
    assert ckptdiff.exit_code(report, "never") == 2


def test_warnings_are_counted(sweep: Path) -> None:
    (sweep / TOP30).rename(sweep / SPEC.scheme(70))
    assert "1 warning" in sentence(sweep)


def test_schemes_are_named_up_to_four(tmp_path: Path) -> None:
    from build import write_sweep

    root = write_sweep(tmp_path, SweepSpec(percents=(10, 30, 50, 70, 90, 100)))
    for percent in (10, 30, 50, 70, 90, 100):
        shutil.rmtree(root / SPEC.scheme(percent) / "layer-sensitivity")
        (root / SPEC.scheme(percent) / "config.json").write_text("nope")
    assert sentence(root).startswith("6 of 6 schemes cannot be relied on: ")
    assert "and 2 more" in sentence(root)


@pytest.mark.parametrize(("require", "reason"), [("base", "a base"), ("manifest", "a coverage")])
def test_what_is_required_and_missing_is_unread(sweep: Path, require: str, reason: str) -> None:
    shutil.rmtree(sweep.parent / "base")
    shutil.rmtree(sweep / TOP30 / "layer-sensitivity")
    report = ckptdiff.check(sweep, require=[require])  # type: ignore[list-item]
    assert [item.reason.startswith(reason) for item in report.unread] == [True]
    assert ckptdiff.exit_code(report) == 2


def test_fewer_schemes_than_expected_are_unread(sweep: Path) -> None:
    report = ckptdiff.check(sweep, expect=10)
    assert [item.reason for item in report.unread] == ["4 schemes found, 10 expected"]
    assert ckptdiff.exit_code(ckptdiff.check(sweep, expect=4)) == 0
