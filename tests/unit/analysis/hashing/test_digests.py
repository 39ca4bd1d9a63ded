"""Digests against the xxhsum program and the one-shot function; which shards have any."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdiff.analysis.hashing import digests as hashing
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.events import Advanced, Event, Started
from ckptdiff.records.checkpoint import Shard, Tensor
from tests.unit.analysis.hashing.shards import (
    EMPTY,
    MIB,
    Inline,
    digests,
    one_shot,
    random_bytes,
    read,
    reason,
    sparse,
    write,
    xxhsum,
)

# Digests


AROUND_BUFFERS = [0, 1, 15, 16, 17, 240, 241, 65_536, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]


def test_digests_are_those_of_xxhsum(tmp_path: Path) -> None:
    data = random_bytes({f"layer.{size}": size for size in AROUND_BUFFERS})
    found = digests(write(tmp_path / "model.safetensors", data))
    for name, content in data.items():
        extracted = tmp_path / name
        extracted.write_bytes(content)
        assert found[name] == xxhsum(extracted) == one_shot(content), name
    assert list(found) == list(data)
    assert found["layer.0"] == EMPTY


def test_thousands_of_small_tensors(tmp_path: Path) -> None:
    random = Random(1)
    data = random_bytes({f"t{number}": random.randrange(2000) for number in range(5000)})
    assert digests(write(tmp_path / "model.safetensors", data)) == {
        name: one_shot(content) for name, content in data.items()
    }


def spanned(data: bytes, span: int) -> bytes:
    if len(data) <= span:
        return one_shot(data)
    return one_shot(b"".join(one_shot(data[at : at + span]) for at in range(0, len(data), span)))


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 100), max_size=20),
    buffer=st.integers(1, 64),
    unit=st.integers(1, 200),
    span=st.integers(1, 64),
)
def test_no_way_of_cutting_changes_a_digest(
    sizes: list[int], buffer: int, unit: int, span: int
) -> None:
    data = random_bytes({f"t{number}": size for number, size in enumerate(sizes)})
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "BUFFER_BYTES", buffer)
        patch.setattr(hashing, "UNIT_BYTES", unit)
        patch.setattr(hashing, "SPAN_BYTES", span)
        shard = write(Path(directory) / "model.safetensors", data)
        found = digests(shard, executor=Inline())
    assert found == {name: spanned(content, span) for name, content in data.items()}


def test_a_tensor_above_256_mib_is_hashed_in_spans(tmp_path: Path) -> None:
    size = 300 * MIB
    shard = sparse(tmp_path / "model.safetensors", {"small": 5, "huge": size})
    executor = Inline()
    found = digests(shard, executor=executor)
    assert executor.tasks == 2  # so that two threads can share it
    parts = []
    for number, length in enumerate([256 * MIB, size - 256 * MIB]):
        part = tmp_path / f"part{number}"
        part.touch()
        os.truncate(part, length)
        parts.append(xxhsum(part))
    assert found == {"small": one_shot(bytes(5)), "huge": one_shot(b"".join(parts))}


def test_a_tensor_of_just_256_mib_is_hashed_whole(tmp_path: Path) -> None:
    shard = sparse(tmp_path / "model.safetensors", {"big": 256 * MIB})
    whole = tmp_path / "whole"
    whole.touch()
    os.truncate(whole, 256 * MIB)
    assert digests(shard) == {"big": xxhsum(whole)}


def test_header_order_gaps_and_overlaps_do_not_matter(tmp_path: Path) -> None:
    data = Random(2).randbytes(3000)
    shard = write(tmp_path / "model.safetensors", {"all": data})
    assert shard.header is not None
    ranges = {"c": (2000, 3000), "a": (0, 900), "inside": (100, 200), "b": (850, 1200), "e": (7, 7)}
    tensors = {name: Tensor("U8", (b - a,), (a, b)) for name, (a, b) in ranges.items()}
    shard = replace(shard, header=replace(shard.header, tensors=tensors))
    assert digests(shard) == {name: one_shot(data[a:b]) for name, (a, b) in ranges.items()}


def test_offsets_that_make_no_sense_get_no_digest(tmp_path: Path) -> None:
    shard = write(tmp_path / "model.safetensors", {"good": b"12345678"})
    assert shard.header is not None
    tensors = {
        **shard.header.tensors,
        "backwards": Tensor("U8", (1,), (5, 4)),
        "before": Tensor("U8", (1,), (-4, 4)),
        "beyond": Tensor("U8", (1,), (1 << 70, (1 << 70) + 1)),
    }
    shard = replace(shard, header=replace(shard.header, tensors=tensors))
    assert digests(shard) == {"good": one_shot(b"12345678")}


def test_units_take_turns_over_files_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "UNIT_BYTES", 10)
    monkeypatch.setattr(hashing, "BUFFER_BYTES", 10)
    cuts = []
    for number, count in enumerate([3, 1, 2]):
        shard = sparse(tmp_path / f"{number}.safetensors", {f"t{i}": 10 for i in range(count)})
        assert shard.header is not None
        assert shard.identity is not None
        cuts.append(hashing.cut(number, shard.path, shard.identity, shard.header))
    for threads, files in (
        (3, [0, 1, 2, 0, 2, 0]),
        (2, [0, 1, 0, 0, 2, 2]),
        (1, [0, 0, 0, 1, 2, 2]),
    ):
        order = [(unit.file, unit.reads[0].start) for unit in hashing._interleaved(cuts, threads)]
        assert [file for file, _ in order] == files
        assert sorted(order, key=lambda item: item[0]) == sorted(order)


def test_each_shard_is_told_as_soon_as_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "UNIT_BYTES", 10)
    monkeypatch.setattr(hashing, "BUFFER_BYTES", 10)
    monkeypatch.setattr(hashing, "SPAN_BYTES", 16)
    shards = [
        write(tmp_path / f"{n}.safetensors", random_bytes({"a": 40, f"b{n}": 7, "c": 33}))
        for n in range(4)
    ]
    os.link(shards[0].path, tmp_path / "again.safetensors")
    shards.append(replace(shards[0], path=str(tmp_path / "again.safetensors")))
    lost = shards[2]
    Path(lost.path).write_bytes(b"another file")
    told: list[tuple[str, object]] = []
    whole = hash_shards(shards, jobs=1, on_shard=lambda path, found: told.append((path, found)))
    assert dict(told) == whole
    assert len(told) == len(shards)
    # With one thread in the order that they were given in, every name of a file at once.
    assert [Path(path).name for path, _ in told] == [
        "0.safetensors", "again.safetensors", "1.safetensors", "2.safetensors", "3.safetensors"
    ]  # fmt: skip
    assert whole[lost.path].unread is not None
    assert hash_shards(shards, jobs=3) == whole


# Which shards


def test_shards_without_a_header_are_passed_over(tmp_path: Path) -> None:
    assert hash_shards([Shard("x.safetensors", str(tmp_path / "x.safetensors"))]) == {}
    assert hash_shards([]) == {}


def test_a_shard_without_an_identity_is_unread(tmp_path: Path) -> None:
    shard = replace(write(tmp_path / "a.safetensors", {"t": b"1"}), identity=None)
    assert "identity" in reason(shard)


def test_a_shard_without_tensors_has_no_digests(tmp_path: Path) -> None:
    assert digests(write(tmp_path / "a.safetensors", {})) == {}


def test_one_file_under_many_names_is_read_once(tmp_path: Path) -> None:
    data = random_bytes({"a": 3 * MIB, "b": 17})
    first = write(tmp_path / "first.safetensors", data)
    os.link(first.path, tmp_path / "hard.safetensors")
    (tmp_path / "soft.safetensors").symlink_to("first.safetensors")
    (tmp_path / "copy.safetensors").write_bytes(Path(first.path).read_bytes())
    events: list[Event] = []
    shards = [read(tmp_path / f"{name}.safetensors") for name in ("first", "hard", "soft", "copy")]
    results = hash_shards(shards, sink=events.append)
    assert list(results) == [shard.path for shard in shards]
    expected = {name: one_shot(content) for name, content in data.items()}
    assert all(result.digests == expected for result in results.values())
    nbytes = 2 * (3 * MIB + 17)  # the file and its copy
    assert events[0] == Started("hash", nbytes, "bytes")
    assert sum(event.amount for event in events if isinstance(event, Advanced)) == nbytes
