"""CK5, across schemes: the founding bug on real exports, and its healthy look-alikes.

Schemes that carry one set of weights under different manifests contradict their manifests
too: CK501 comes with the CK301 or CK302 of every copy, and nothing else does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mutate import Mutant, flip, graft, split, tensors

import ckptdiff
from ckptdiff.records.report import CheckReport

SINGLE = "model.safetensors"
SUBSETS = (10, 30, 50, 100)


def copy_weights(source: Path, targets: Sequence[Path]) -> None:
    """Weights and configs under the manifests of other schemes."""
    for target in targets:
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, target)


def baseline(mutant: Mutant) -> Path:
    (found,) = (path for path in mutant.root.iterdir() if "_top" not in path.name)
    return found


def worse_than_info(report: CheckReport) -> set[tuple[str, tuple[str, ...]]]:
    return {(f.code, f.schemes) for f in report.findings if f.severity != "info"}


def test_all_ck5_clean(mutant: Mutant) -> None:
    assert mutant.new() == []


def test_ck501_fires(mutant: Mutant) -> None:
    """top50 copied over top30, which now quantizes what it does not select."""
    copy_weights(mutant[50], [mutant[30]])
    for with_base in (True, False):
        report = mutant.check(with_base)
        top30, top50 = mutant[30].name, mutant[50].name
        assert worse_than_info(report) == {("CK501", (top30, top50)), ("CK302", (top30,))}
        assert set(report.verdict.safe) == {p.name for p in mutant.root.iterdir()} - {top30}
        group = next(f for f in report.findings if f.code == "CK501")
        assert [place.shard for place in group.locations] == [SINGLE]
        assert f"only {top50} is what it says" in group.message


def test_ck501_fires_on_the_founding_bug(mutant: Mutant) -> None:
    """A baseline under a bits budget, copied under every name."""
    copies = [mutant[percent] for percent in SUBSETS]
    copy_weights(baseline(mutant), copies)
    report = mutant.check(with_base=True)
    codes = [f.code for f in report.findings if f.severity != "info"]
    assert codes.count("CK501") == 1
    assert set(codes) == {"CK501", "CK301", "CK302"}
    group = next(f for f in report.findings if f.code == "CK501")
    assert set(group.schemes) == {path.name for path in mutant.root.iterdir()}
    assert report.verdict.sentence == (
        "5 schemes carry one set of weights: their manifests declare 10-100 % of 31 recipes, "
        "their tensors hold 33 of 49 modules"
    )
    # The baseline claims what it holds, so it stays; none of the copies does.
    assert report.verdict.safe == (baseline(mutant).name,)
    assert len(report.identity) == 1


def test_ck501_spares_the_member_that_follows_its_manifest(mutant: Mutant) -> None:
    copy_weights(mutant[50], [mutant[percent] for percent in (10, 30, 100)])
    report = mutant.check(with_base=True)
    group = next(f for f in report.findings if f.code == "CK501")
    assert len(group.schemes) == 4
    assert report.verdict.safe == (baseline(mutant).name, mutant[50].name)
    assert {row.id: row.status for row in report.schemes}[mutant[50].name] == "ok"


def test_ck501_does_not_depend_on_sharding(mutant: Mutant) -> None:
    copy_weights(mutant[50], [mutant[30]])
    split(mutant[30], shards=3)
    assert "CK501" in {f.code for f in mutant.new()}


def test_ck501_fires_for_hard_links(mutant: Mutant) -> None:
    target = mutant[30] / SINGLE
    target.unlink()
    os.link(mutant[50] / SINGLE, target)
    assert "CK501" in {f.code for f in mutant.new()}


def test_ck501_clean_when_one_bit_differs(mutant: Mutant) -> None:
    copy_weights(mutant[50], [mutant[30]])
    with tensors(mutant[30]) as found:
        name = "model.layers.1.self_attn.o_proj.weight"
        found[name] = flip(found[name])
    codes = {f.code for f in mutant.new()}
    assert "CK501" not in codes and "CK503" in codes


def test_without_hashes_the_headers_still_prove_it(mutant: Mutant) -> None:
    copy_weights(mutant[50], [mutant[percent] for percent in (10, 30, 100)])
    report = ckptdiff.check(mutant.root, hashes=False)
    assert ckptdiff.exit_code(report) == 1
    assert "4 schemes quantize the same layers" in report.verdict.sentence
    assert {skip.code for skip in report.skipped} >= {"CK501", "CK502", "CK503"}


def test_ck502_fires(mutant: Mutant) -> None:
    """A re-export beside its original that turns out to be the same to the bit."""
    again = mutant.root / f"{mutant[30].name}_v2"
    shutil.copytree(mutant[30], again)
    with tensors(again) as found:
        name = "model.layers.1.self_attn.o_proj.input_scale"
        found[name] = flip(found[name])
    mutant.settle()
    shutil.copy(mutant.root / again.name.removesuffix("_v2") / SINGLE, again)
    for with_base in (True, False):
        (finding,) = mutant.new(with_base)
        assert (finding.code, finding.severity) == ("CK502", "info")
        assert finding.schemes == (again.name.removesuffix("_v2"), again.name)


def test_ck502_fires_without_manifests(mutant: Mutant) -> None:
    """Nobody can say whether they should differ; the sentence mentions them all the same."""
    copy_weights(mutant[50], [mutant[percent] for percent in (10, 30, 100)])
    for folder in mutant.root.glob("*/layer-sensitivity"):
        shutil.rmtree(folder)
    report = mutant.check(with_base=True)
    assert {f.code for f in report.findings} == {"CK307", "CK406", "CK502"}
    assert "4 of them carry one set of weights" in report.verdict.sentence


def swap(one: Path, other: Path) -> None:
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def test_ck503_fires(mutant: Mutant) -> None:
    """The weights of two schemes were swapped, their configs were not."""
    swap(mutant[30] / SINGLE, mutant[50] / SINGLE)
    finding = mutant.expect("CK503", [mutant[30], mutant[50]])
    assert mutant[50].name in finding.message


def test_ck503_fires_on_swapped_exports(mutant: Mutant) -> None:
    for name in (SINGLE, "config.json", "hf_quant_config.json"):
        swap(mutant[30] / name, mutant[50] / name)
    mutant.expect("CK503", [mutant[30], mutant[50]])


def test_ck503_fires_for_a_scheme_short_of_what_it_adds(mutant: Mutant) -> None:
    """top30 that carries the layers of top10, from an export of its own."""
    modules = {"visual.merger.mlp.0", "visual.blocks.0.mlp.down_proj"}
    copy_weights(mutant[10], [mutant[30]])
    with tensors(mutant[30]) as found:
        name = "visual.merger.mlp.2.input_scale"
        assert name in found and not any(f"{module}.weight_scale" in found for module in modules)
        found[name] = flip(found[name])
    finding = mutant.expect("CK503", mutant[30])
    assert mutant[10].name in finding.message


def test_ck503_leaves_members_of_an_identity_group_alone(mutant: Mutant) -> None:
    copy_weights(mutant[50], [mutant[10], mutant[30]])
    assert "CK503" not in {f.code for f in mutant.new()}


def test_ck503_is_no_match_for_one_module_more(mutant: Mutant) -> None:
    """Next to another scheme's layers is not another scheme's layers."""
    swap(mutant[30] / SINGLE, mutant[50] / SINGLE)
    graft(mutant[30], "visual.merger.mlp.2", mutant.base)
    found = {(f.code, f.schemes) for f in mutant.new()}
    name30, name50 = (mutant[30].name,), (mutant[50].name,)
    assert found == {("CK301", name30), ("CK302", name30), ("CK503", name50)}
