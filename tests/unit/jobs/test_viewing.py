"""A base with fused experts, looked at one expert at a time: which bytes are whose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash
from build import Spec, write_weights
from numpy.typing import NDArray

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.experts import viewed
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.jobs.reading import read_one
from ckptdiff.jobs.viewing import digest_parts
from ckptdiff.records.checkpoint import Checkpoint
from ckptdiff.records.digests import Flaws, ShardDigests
from ckptdiff.sources.cache import Cache
from tests.unit.jobs.test_caching import age

EXPERTS = "model.layers.0.mlp.experts"
FAMILIES = {"qwen": ("gate_proj", "up_proj", "down_proj"), "mixtral": ("w1", "w3", "w2")}
# More rows than are read at a time, and a square matrix, which lies as its neighbour does.
SIZES = {"large": (2, 700, 900), "square": (3, 8, 8), "narrow": (2, 1, 5)}


def fused(count: int, inner: int, hidden: int, way: str) -> dict[str, NDArray[np.uint16]]:
    """Every element is another one, as far as 16 bits can tell."""
    shapes = {"gate_up_proj": (count, 2 * inner, hidden), "down_proj": (count, hidden, inner)}
    stacks = {}
    for number, (name, shape) in enumerate(shapes.items()):
        straight = (np.arange(np.prod(shape)) * 31 + number).astype(np.uint16).reshape(shape)
        stacks[name] = straight if way == "straight" else straight.transpose(0, 2, 1).copy()
    return stacks


def written(folder: Path, tensors: dict[str, Spec]) -> Checkpoint:
    folder.mkdir()
    write_weights(folder, tensors)
    age(folder)
    return read_one(folder)


def base_and_view(
    folder: Path, size: tuple[int, int, int], way: str, family: str = "qwen"
) -> tuple[Checkpoint, Checkpoint]:
    count, inner, hidden = size
    gate, up, down = FAMILIES[family]
    shapes = {gate: (inner, hidden), up: (inner, hidden), down: (hidden, inner)}
    base = written(
        folder / "base",
        {
            f"{EXPERTS}.{name}": Spec("BF16", array.shape, name, array.tobytes())
            for name, array in fused(*size, way).items()
        }
        | {"model.norm.weight": Spec("BF16", (hidden,), "n")},
    )
    scheme = written(
        folder / "scheme",
        {
            f"{EXPERTS}.{expert}.{leaf}.weight": Spec("BF16", shape, "x")
            for expert in range(count)
            for leaf, shape in shapes.items()
        },
    )
    return base, viewed(base, [scheme_evidence(scheme, None)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["straight", "transposed"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_element_of_every_expert(
    tmp_path: Path, size: tuple[int, int, int], way: str, family: str
) -> None:
    count, inner, _ = size
    base, view = base_and_view(tmp_path, size, way, family)
    gate, up, down = FAMILIES[family]
    stacks = fused(*size, "straight")
    wanted = {
        name: matrix
        for n in range(count)
        for name, matrix in (
            (f"{EXPERTS}.{n}.{gate}.weight", stacks["gate_up_proj"][n, :inner]),
            (f"{EXPERTS}.{n}.{up}.weight", stacks["gate_up_proj"][n, inner:]),
            (f"{EXPERTS}.{n}.{down}.weight", stacks["down_proj"][n]),
        )
    }
    (shard,) = view.shards
    assert shard.tensors.keys() == wanted.keys() | {"model.norm.weight"}
    how, cancel = Hashing(None), CancelToken()
    digests = digest_shards(view.shards, how, sink=silent, cancel=cancel)
    assert digests[shard.path].digests.keys() == base.shards[0].tensors.keys()
    found, unread = digest_parts(view, digests, how, sink=silent, cancel=cancel)
    assert unread == []
    with TensorReader() as reader:
        for name, matrix in wanted.items():
            tensor = shard.tensors[name]
            assert (tensor.shape, tensor.nbytes) == (matrix.shape, matrix.nbytes)
            rows = reader.rows(shard, name)
            read = np.concatenate([part for _, part in rows.chunks()]).view(np.uint16)
            assert np.array_equal(read, matrix)
            serial = [part.reshape(-1) for _, part in reader.serial(shard, name).chunks()]
            assert np.array_equal(np.concatenate(serial).view(np.uint16), matrix.reshape(-1))
            digest = xxhash.xxh3_128_digest(np.ascontiguousarray(matrix).tobytes())
            assert found[shard.path].digests[name] == digest


@pytest.mark.usefixtures("only_mtime_settles")
def test_a_view_is_remembered_as_what_lies_in_the_file(tmp_path: Path) -> None:
    base, view = base_and_view(tmp_path, (2, 4, 6), "transposed")
    cache, cancel = Cache(), CancelToken()
    how = Hashing(cache)
    first = digest_shards(view.shards, how, sink=silent, cancel=cancel)
    parts, _ = digest_parts(view, first, how, sink=silent, cancel=cancel)
    events: list[object] = []
    assert digest_shards(base.shards, how, sink=events.append, cancel=cancel) == first
    again = digest_shards(view.shards, how, sink=events.append, cancel=cancel)
    assert digest_parts(view, again, how, sink=events.append, cancel=cancel)[0] == parts
    assert events == []  # nothing was read


def test_parts_of_a_tensor_with_bad_values_are_suspect(tmp_path: Path) -> None:
    _, view = base_and_view(tmp_path, (2, 4, 6), "straight")
    (shard,) = view.shards
    flaws = {f"{EXPERTS}.down_proj": Flaws(1, 30)}
    names = dict.fromkeys(shard.stored, bytes(16))
    before = {shard.path: ShardDigests(names, flaws=flaws)}
    found, _ = digest_parts(view, before, Hashing(None), sink=silent, cancel=CancelToken())
    suspect = found[shard.path].flaws.keys() - flaws.keys()
    assert suspect == {f"{EXPERTS}.{expert}.down_proj.weight" for expert in (0, 1)}


def test_a_damaged_expert_does_not_hide_the_others(tmp_path: Path) -> None:
    """One has another shape, one projection is missing everywhere, one expert is missing."""
    stacks = {
        f"{EXPERTS}.{name}": Spec("BF16", array.shape, name)
        for name, array in fused(4, 4, 6, "straight").items()
    }
    base = written(tmp_path / "base", stacks)
    scheme = written(
        tmp_path / "scheme",
        {
            f"{EXPERTS}.0.gate_proj.weight": Spec("BF16", (2, 6), "x"),
            f"{EXPERTS}.2.gate_proj.weight": Spec("BF16", (4, 6), "x"),
            f"{EXPERTS}.3.gate_proj.weight": Spec("BF16", (4, 6), "x"),
        },
    )
    (shard,) = viewed(base, [scheme_evidence(scheme, None)]).shards
    assert set(shard.tensors) == {f"{EXPERTS}.down_proj"} | {
        f"{EXPERTS}.{n}.{leaf}.weight" for n in range(4) for leaf in ("gate_proj", "up_proj")
    }


def test_a_base_is_left_as_it_is_where_nothing_wants_its_parts(tmp_path: Path) -> None:
    base, _ = base_and_view(tmp_path, (2, 4, 6), "straight")
    assert viewed(base, [scheme_evidence(base, None)]) is base


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8"])
def test_quantized_tensors_of_experts_stay_whole(tmp_path: Path, dtype: str) -> None:
    """Nobody knows which of their scales belong to which expert."""
    stacks = {f"{EXPERTS}.down_proj": Spec(dtype, (2, 6, 4), "d")}
    single = {f"{EXPERTS}.{n}.down_proj.weight": Spec("BF16", (6, 4), "x") for n in (0, 1)}
    single |= {f"{EXPERTS}.0.gate_proj.weight": Spec("BF16", (4, 6), "x")}
    base, scheme = written(tmp_path / "base", stacks), written(tmp_path / "scheme", single)
    assert viewed(base, [scheme_evidence(scheme, None)]) is base


def test_what_a_base_has_both_ways_is_taken_as_it_is(tmp_path: Path) -> None:
    single = {f"{EXPERTS}.{n}.down_proj.weight": Spec("BF16", (6, 4), "x") for n in (0, 1)}
    single |= {f"{EXPERTS}.0.gate_proj.weight": Spec("BF16", (4, 6), "x")}
    both = single | {f"{EXPERTS}.down_proj": Spec("BF16", (2, 6, 4), "d")}
    base, scheme = written(tmp_path / "base", both), written(tmp_path / "scheme", single)
    assert viewed(base, [scheme_evidence(scheme, None)]) is base


def test_an_empty_tensor_has_no_experts(tmp_path: Path) -> None:
    """A header may claim any number of them where none takes a byte."""
    stacks = {f"{EXPERTS}.gate_up_proj": Spec("BF16", (10**12, 0, 6), "d")}
    single = {f"{EXPERTS}.0.gate_proj.weight": Spec("BF16", (0, 6), "x")}
    base, scheme = written(tmp_path / "base", stacks), written(tmp_path / "scheme", single)
    assert viewed(base, [scheme_evidence(scheme, None)]) is base


def test_a_square_matrix_without_a_neighbour_stays_whole(tmp_path: Path) -> None:
    """It would be held against its own transpose as soon as against itself."""
    stacks = {f"{EXPERTS}.down_proj": Spec("BF16", (2, 4, 4), "d")}
    single = {
        f"{EXPERTS}.{n}.{leaf}.weight": Spec("BF16", (4, 4), "x")
        for n in (0, 1)
        for leaf in ("gate_proj", "up_proj", "down_proj")
    }
    base, scheme = written(tmp_path / "base", stacks), written(tmp_path / "scheme", single)
    assert viewed(base, [scheme_evidence(scheme, None)]) is base
