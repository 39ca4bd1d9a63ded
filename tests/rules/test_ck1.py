"""CK1, container and index: one damaged file of a real export, one code."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from build import write_shard
from mutate import (
    INDEX,
    Mutant,
    baseline_path,
    coverage_path,
    document,
    header,
    read_tensors,
    shard_of,
    split,
    tensors,
)

from ckptdiff.records.finding import Location

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NORM = "model.norm.weight"
WEIGHT = "model.layers.1.self_attn.o_proj.weight"


@pytest.fixture
def scheme(mutant: Mutant) -> Path:
    """top30 in two shards with an index, as healthy as it was."""
    assert split(mutant[30]) == [FIRST, SECOND]
    mutant.settle()
    return mutant[30]


def in_shard(name: str, *tensor_names: str) -> list[Location]:
    return [Location(tensor=tensor, shard=name) for tensor in tensor_names]


def test_all_ck1_clean(mutant: Mutant, scheme: Path) -> None:
    assert mutant.new() == []


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json", INDEX])
def test_ck101_fires(mutant: Mutant, scheme: Path, name: str) -> None:
    (scheme / name).write_text('{"architectures": [}')
    finding = mutant.expect("CK101", scheme, [Location(shard=name)])
    assert finding.locations[0].offset == 19


def test_ck101_fires_on_manifests(mutant: Mutant, scheme: Path) -> None:
    for path in (coverage_path(scheme), baseline_path(scheme)):
        held = path.read_bytes()
        path.write_text("[]")
        name = path.relative_to(scheme).as_posix()
        mutant.expect("CK101", scheme, [Location(shard=name)])
        path.write_bytes(held)


@pytest.mark.parametrize("start", [struct.pack("<Q", 2**62) + b"{}", b"<!DOCTYPE html>"])
def test_ck101_fires_on_a_header(mutant: Mutant, scheme: Path, start: bytes) -> None:
    (scheme / FIRST).write_bytes(start)
    mutant.expect("CK101", scheme, [Location(shard=FIRST)])


def test_ck101_fires_on_a_wrong_range(mutant: Mutant, scheme: Path) -> None:
    with header(scheme / FIRST) as found:
        found["model.embed_tokens.weight"]["shape"][0] += 1
    mutant.expect("CK101", scheme, in_shard(FIRST, "model.embed_tokens.weight"))


def test_ck102_fires(mutant: Mutant, scheme: Path) -> None:
    os.truncate(scheme / FIRST, (scheme / FIRST).stat().st_size - 10)
    last = list(read_tensors(scheme / FIRST))[-1]
    mutant.expect("CK102", scheme, in_shard(FIRST, last))


def test_ck102_fires_on_an_empty_file(mutant: Mutant, scheme: Path) -> None:
    (scheme / FIRST).write_bytes(b"")
    mutant.expect("CK102", scheme, [Location(shard=FIRST)])


def test_ck103_fires(mutant: Mutant, scheme: Path) -> None:
    (scheme / FIRST).unlink()
    mutant.expect("CK103", scheme, [Location(shard=FIRST)])


def test_ck103_fires_without_an_index(mutant: Mutant, scheme: Path) -> None:
    (scheme / INDEX).unlink()
    mutant.settle()
    (scheme / FIRST).unlink()
    mutant.expect("CK103", scheme, [Location(shard=FIRST)])


def test_ck104_fires(mutant: Mutant, scheme: Path) -> None:
    with document(scheme / INDEX) as index:
        index["weight_map"]["ghost.weight"] = FIRST
    mutant.expect("CK104", scheme, in_shard(FIRST, "ghost.weight"))


@pytest.mark.parametrize(
    "tensor", [NORM, WEIGHT, "model.layers.5.mlp.down_proj.weight", f"{WEIGHT}_scale"]
)
def test_ck104_fires_for_what_the_shard_lost(mutant: Mutant, scheme: Path, tensor: str) -> None:
    """A weight or a scale that the index promises is absent, and nothing else is wrong."""
    shard = shard_of(scheme, tensor)
    with tensors(scheme / shard) as found:
        del found[tensor]
    mutant.expect("CK104", scheme, in_shard(shard, tensor))


@pytest.mark.parametrize("target", ["../../x.safetensors", "/etc/passwd", "a/../../b", "c\\..\\d"])
def test_ck105_fires(mutant: Mutant, scheme: Path, target: str) -> None:
    with document(scheme / INDEX) as index:
        index["weight_map"]["ghost.weight"] = target
    finding = mutant.expect("CK105", scheme, [Location(shard=INDEX)])
    assert finding.locations[0].actual == target


def test_ck106_fires(mutant: Mutant, scheme: Path) -> None:
    for path in scheme.glob("model*"):
        path.unlink()
    mutant.expect("CK106", scheme, [Location(shard=".")])


def test_ck107_fires(mutant: Mutant, scheme: Path) -> None:
    """The last tensor begins 16 bytes early, and the file ends there too."""
    with header(scheme / FIRST) as found:
        before, last = list(found)[-2:]
        start, end = found[last]["data_offsets"]
        found[last]["data_offsets"] = [start - 16, end - 16]
    os.truncate(scheme / FIRST, (scheme / FIRST).stat().st_size - 16)
    finding = mutant.expect("CK107", scheme, in_shard(FIRST, last))
    assert before in f"{finding.message} {finding.locations}"


def test_ck108_fires(mutant: Mutant, scheme: Path) -> None:
    size = (scheme / FIRST).stat().st_size
    with (scheme / FIRST).open("ab") as file:
        file.write(bytes(16))
    finding = mutant.expect("CK108", scheme, [Location(shard=FIRST)])
    assert finding.locations[0].offset == size


def test_ck109_fires(mutant: Mutant, scheme: Path) -> None:
    name, spec = next(iter(read_tensors(scheme / FIRST).items()))
    with tensors(scheme / SECOND) as found:
        found[name] = spec
    mutant.expect("CK109", scheme, in_shard(SECOND, name))


def test_ck110_fires(mutant: Mutant, scheme: Path) -> None:
    shard = shard_of(scheme, NORM)
    with document(scheme / INDEX) as index:
        del index["weight_map"][NORM]
    mutant.expect("CK110", scheme, in_shard(shard, NORM))


@pytest.mark.parametrize("change", [1, -4096])
def test_ck111_fires(mutant: Mutant, scheme: Path, change: int) -> None:
    with document(scheme / INDEX) as index:
        index["metadata"]["total_size"] += change
        wrong = index["metadata"]["total_size"]
    finding = mutant.expect("CK111", scheme, [Location(shard=INDEX)])
    assert finding.actual == str(wrong)


def test_ck112_fires(mutant: Mutant, scheme: Path) -> None:
    stray = "model-00003-of-00003.safetensors"
    (scheme / stray).write_bytes((scheme / SECOND).read_bytes())
    mutant.expect("CK112", scheme, [Location(shard=stray)])


def test_ck112_fires_beside_a_single_file(mutant: Mutant) -> None:
    """The shards of an earlier export are not read by a loader that finds one file."""
    write_shard(mutant[10] / FIRST, {"x": read_tensors(mutant.base / "model.safetensors")[NORM]})
    mutant.expect("CK112", mutant[10], [Location(shard=FIRST)])


def test_ck113_fires(mutant: Mutant, scheme: Path) -> None:
    other = NORM.removeprefix("model.")
    shard = shard_of(scheme, NORM)
    with tensors(scheme / shard) as found:
        found[other] = found.pop(NORM)
    with document(scheme / INDEX) as index:
        index["weight_map"][other] = index["weight_map"].pop(NORM)
    mutant.expect("CK113", scheme, in_shard(shard, other))


def test_ck114_fires(mutant: Mutant, scheme: Path) -> None:
    """Loaders that prefer a whole file would take another scheme's weights."""
    whole = "model.safetensors"
    (scheme / whole).write_bytes((mutant[10] / whole).read_bytes())
    mutant.expect("CK114", scheme, [Location(shard=whole)])
