"""One directory -> one record: which shards a loader reads, and what contradicts what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build import Spec, base_tensors, fp8_tensors, write_json, write_scheme, write_shard

from ckptdiff.formats.checkpoint import is_checkpoint, read_checkpoint
from ckptdiff.records.checkpoint import Checkpoint

ONE = {"a.weight": Spec("BF16", (2, 2), "a")}


def read(path: Path) -> Checkpoint:
    return read_checkpoint(path, "x")


def kinds(checkpoint: Checkpoint) -> list[str]:
    every = checkpoint.defects + tuple(d for shard in checkpoint.shards for d in shard.defects)
    return sorted(defect.kind for defect in every)


@pytest.fixture
def scheme(tmp_path: Path) -> Path:
    return write_scheme(tmp_path / "x", fp8_tensors([]), shards=3)


def test_a_healthy_checkpoint(scheme: Path) -> None:
    found = read(scheme)
    assert kinds(found) == []
    assert found.readable
    assert {name for name, _, _ in found.items()} == set(base_tensors())
    assert found.nbytes == sum(spec.nbytes for spec in base_tensors().values())
    assert found.documents == (
        "config.json",
        "hf_quant_config.json",
        "model.safetensors.index.json",
    )


def test_a_tensor_in_two_shards(scheme: Path) -> None:
    write_shard(scheme / "model-00004-of-00004.safetensors", ONE)
    index = json.loads((scheme / "model.safetensors.index.json").read_text())
    first = next(iter(index["weight_map"]))
    write_shard(scheme / "model-00004-of-00004.safetensors", {first: base_tensors()[first], **ONE})
    index["weight_map"]["a.weight"] = "model-00004-of-00004.safetensors"
    del index["metadata"]
    write_json(scheme / "model.safetensors.index.json", index)
    assert kinds(read(scheme)) == ["twice"]


def test_a_tensor_that_the_index_does_not_name(scheme: Path) -> None:
    index = json.loads((scheme / "model.safetensors.index.json").read_text())
    del index["weight_map"]["model.norm.weight"]
    write_json(scheme / "model.safetensors.index.json", index)
    assert kinds(read(scheme)) == ["not-indexed"]


def test_a_wrong_total_size(scheme: Path) -> None:
    index = json.loads((scheme / "model.safetensors.index.json").read_text())
    index["metadata"]["total_size"] += 1
    write_json(scheme / "model.safetensors.index.json", index)
    (defect,) = read(scheme).defects
    assert (defect.kind, defect.actual) == ("total-size", str(index["metadata"]["total_size"]))


def test_a_stray_shard(scheme: Path) -> None:
    write_shard(scheme / "old.safetensors", ONE)
    assert kinds(read(scheme)) == ["stray-shard"]


def test_a_single_file_beside_others_is_what_a_loader_reads(tmp_path: Path) -> None:
    write_shard(tmp_path / "model.safetensors", ONE)
    write_shard(tmp_path / "other.safetensors", ONE)
    found = read(tmp_path)
    assert [shard.name for shard in found.shards] == ["model.safetensors"]
    assert kinds(found) == ["stray-shard"]


def test_consolidated_weights_alone_are_the_weights(tmp_path: Path) -> None:
    write_shard(tmp_path / "consolidated.safetensors", ONE)
    assert [shard.name for shard in read(tmp_path).shards] == ["consolidated.safetensors"]


def test_a_forged_number_of_shards_lists_none(tmp_path: Path) -> None:
    name = "model-00001-of-999999999.safetensors"
    write_shard(tmp_path / name, ONE)
    assert [shard.name for shard in read(tmp_path).shards] == [name]


def test_shards_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_shard(tmp_path / "sub" / "w.safetensors", ONE)
    write_json(
        tmp_path / "model.safetensors.index.json",
        {"metadata": {}, "weight_map": {"a.weight": "sub/w.safetensors"}},
    )
    found = read(tmp_path)
    assert kinds(found) == []
    assert found.readable


def test_an_empty_index_means_no_weights(tmp_path: Path) -> None:
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {}})
    write_shard(tmp_path / "stray.safetensors", ONE)
    assert kinds(read(tmp_path)) == ["no-weights", "stray-shard"]


def test_a_directory_that_is_gone_is_unread_and_not_empty(tmp_path: Path) -> None:
    found = read(tmp_path / "gone")
    assert kinds(found) == []
    assert [item.path for item in found.unread] == ["."]
    assert not found.readable


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors"], True),
        (["model.safetensors.index.json"], True),
        (["hf_quant_config.json"], True),
        (["x_coverage_from_baseline.json"], True),
        (["adapter_model.safetensors"], False),
        (["config.json"], False),
        (["model.gguf", "pytorch_model.bin"], False),
        ([], False),
    ],
)
def test_what_is_a_checkpoint(tmp_path: Path, names: list[str], expected: bool) -> None:
    assert is_checkpoint(tmp_path, names) is expected


def test_a_coverage_manifest_alone_makes_a_checkpoint(tmp_path: Path) -> None:
    write_json(tmp_path / "layer-sensitivity" / "x_coverage_from_baseline.json", {})
    assert is_checkpoint(tmp_path, ["layer-sensitivity"])
