"""Fingerprints: what the contract says, whatever the files are."""

from __future__ import annotations

from pathlib import Path
from random import Random

from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.analysis.hashing.fingerprint import fingerprint
from ckptdiff.records.checkpoint import Shard
from tests.unit.analysis.hashing.shards import EMPTY, one_shot, random_bytes, write, xxhsum


def test_the_fingerprint_is_what_the_contract_says(tmp_path: Path) -> None:
    leaves = []
    for text in (
        '["lm_head.weight","BF16",[2,3],"00000000000000000000000000000001"]',
        '["model.größe","F32",[],"000000000000000000000000000000ff"]',
    ):
        (tmp_path / "leaf").write_bytes(text.encode())
        leaves.append(xxhsum(tmp_path / "leaf"))
    (tmp_path / "leaves").write_bytes(b"".join(leaves))
    tensors = [
        ("model.größe", "F32", (), (255).to_bytes(16, "big")),
        ("lm_head.weight", "BF16", [2, 3], (1).to_bytes(16, "big")),
    ]
    assert fingerprint(tensors) == "ckptdiff1:" + xxhsum(tmp_path / "leaves").hex()
    assert fingerprint(reversed(tensors)) == fingerprint(tensors)


def test_the_fingerprint_sees_every_part() -> None:
    prints = {
        fingerprint([]),
        fingerprint([("a", "U8", (1, 2), EMPTY)]),
        fingerprint([("b", "U8", (1, 2), EMPTY)]),
        fingerprint([("a", "I8", (1, 2), EMPTY)]),
        fingerprint([("a", "U8", (2, 1), EMPTY)]),
        fingerprint([("a", "U8", (1, 2), one_shot(b"1"))]),
        fingerprint([("a", "U8", (1, 2), EMPTY), ("b", "U8", (1, 2), EMPTY)]),
    }
    assert len(prints) == 7


def test_a_lone_surrogate_in_a_name_is_no_trouble() -> None:
    prints = {fingerprint([(name, "U8", (1,), EMPTY)]) for name in ("\ud800", "\udfff", "?")}
    assert len(prints) == 3


def of_files(shards: list[Shard]) -> str:
    found = hash_shards(shards)
    return fingerprint(
        (name, tensor.dtype, tensor.shape, found[shard.path].digests[name])
        for shard in shards
        for name, tensor in shard.tensors.items()
    )


def test_the_fingerprint_does_not_depend_on_sharding(tmp_path: Path) -> None:
    data = random_bytes({f"model.layers.{number}.weight": 1000 + number for number in range(20)})
    whole = of_files([write(tmp_path / "model.safetensors", data)])
    names = list(data)
    Random(3).shuffle(names)
    shards = [
        write(tmp_path / f"part-{k}.safetensors", {name: data[name] for name in names[k::3]})
        for k in range(3)
    ]
    assert of_files(shards) == of_files(shards[::-1]) == whole
    twice = [*shards, write(tmp_path / "again.safetensors", {names[0]: b"x"})]
    assert of_files(twice) == of_files(twice[::-1]) != whole
