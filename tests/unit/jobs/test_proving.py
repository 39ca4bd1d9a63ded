"""Proving a scheme: what is read, reported and given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from build import Spec, config, write_json, write_scheme, write_weights
from mutate import flip, shard_of, tensors

from ckptdiff.analysis import tensors as reading
from ckptdiff.errors import Cancelled
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started, silent
from ckptdiff.jobs import proving
from ckptdiff.jobs.proving import STAGE, prove
from ckptdiff.quant.arrays import CHUNK_ELEMENTS, Array
from ckptdiff.records.proof import Proof
from tests.unit.jobs.provable import (
    evidence_of,
    names,
    originals,
    packed,
    proofs,
    write,
)

pytestmark = pytest.mark.usefixtures("only_mtime_settles")


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("layout", ["fp8", "int8", "nvfp4"])
def test_every_module_is_proven(tmp_path: Path, layout: str, shards: int) -> None:
    found = proofs(write(tmp_path, layout, shards=shards))
    assert sorted(found) == sorted(name.removeprefix("model.") for name in names())
    for key, proof in found.items():
        assert (proof.status, proof.layout, proof.key) == ("proven", layout, key)
        assert proof.module == f"model.{key}" and proof.weight == f"model.{key}.weight"
        assert "BF16 cpu" in proof.scale_dialects and "BF16 cpu" in proof.code_dialects


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    root = write(tmp_path)
    keys = ["layers.1.mlp.up_proj", "layers.0.self_attn.k_proj", "norm", "nowhere"]
    found = proofs(root, keys=keys)
    assert list(found) == sorted(keys)
    status = {key: (proof.status, proof.reason) for key, proof in found.items()}
    assert status["norm"] == status["nowhere"] == ("unknown", "it is not quantized")
    assert status["layers.1.mlp.up_proj"] == ("proven", None)


@pytest.mark.parametrize("jobs", [1, 4])
def test_threads_change_nothing(tmp_path: Path, jobs: int) -> None:
    root = write(tmp_path, "nvfp4")
    assert proofs(root, jobs=jobs) == proofs(root)


@pytest.mark.parametrize("fault", ["none", "codes", "gone"])
def test_processes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Nor does where a weight is wrong, or cannot be read, get lost on the way."""
    root = write(tmp_path, shards=3)
    scheme = root / "fp8_21"
    weight = f"{names()[0]}.weight"
    path = scheme / shard_of(scheme, weight)
    if fault == "codes":
        with tensors(path) as found:
            found[weight] = flip(found[weight])
    evidence, events = evidence_of(root), list[Event]()
    if fault == "gone":
        path.unlink()

    def proved(sink: Callable[[Event], None] = silent) -> Mapping[str, Proof]:
        larger = max(evidence.schemes, key=lambda s: len(s.coverage.quantized))
        assert evidence.base is not None
        return prove(larger, evidence.base, jobs=2, sink=sink, cancel=CancelToken())

    by_threads = proved()
    monkeypatch.setattr(proving, "_FOR_PROCESSES", 0)
    monkeypatch.setattr(proving, "MOST_THREADS", 1)
    monkeypatch.setattr(proving, "TensorReader", None)  # not here
    assert proved(events.append) == by_threads
    statuses = {proof.status for proof in by_threads.values()}
    expected = {"none": {"proven"}, "codes": {"proven", "codes"}, "gone": {"unknown"}}
    assert statuses == expected[fault]
    total = events[0]
    assert isinstance(total, Started)
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == total.total


@pytest.mark.parametrize("count", [1, 2])
def test_of_a_partial_group_the_quantized_members_share(tmp_path: Path, count: int) -> None:
    """And so does a whole group of which a part was taken."""
    root = write(tmp_path, "nvfp4", most=count)
    assert {p.status for p in proofs(root).values()} == {"proven"}
    whole = packed("nvfp4", names())
    part = packed("nvfp4", names()[:count])
    part |= {name: whole[name] for name in part if "q_proj" in name}
    write_weights(root / f"nvfp4_{count}", part)
    found = proofs(root)
    assert found["layers.0.self_attn.q_proj"].status == "proven"
    changed = whole["model.layers.0.self_attn.q_proj.weight_scale_2"]
    own = packed("nvfp4", names()[:count])["model.layers.0.self_attn.q_proj.weight_scale_2"]
    assert changed.data() != own.data()


# Progress, and an end


def test_progress_adds_up(tmp_path: Path) -> None:
    events: list[Event] = []
    threads: set[int] = set()

    def sink(event: Event) -> None:
        events.append(event)
        threads.add(threading.get_ident())

    proofs(write(tmp_path), sink=sink)
    start, *steps, end = events
    assert isinstance(start, Started) and (start.stage, start.unit) == (STAGE, "bytes")
    weights = sum(weight.size for weight in originals().values())
    assert start.total == weights + 2 * 2 * weights  # codes once, the base twice
    assert sum(e.amount for e in steps if isinstance(e, Advanced)) == start.total
    assert isinstance(end, Finished)
    assert threads == {threading.get_ident()}


def test_cancelled_before_anything_is_read(tmp_path: Path) -> None:
    root, token = write(tmp_path), CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        proofs(root, cancel=token)


def test_cancelled_within_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next chunk is not read any more, however many are left."""
    root, token, count = write(tmp_path), CancelToken(), 0
    read_into = reading.read_into

    def reads(fd: int, offset: int, array: Array) -> None:
        nonlocal count
        count += 1
        token.cancel()
        read_into(fd, offset, array)

    monkeypatch.setattr(reading, "read_into", reads)
    with pytest.raises(Cancelled):
        proofs(root, cancel=token, jobs=2)
    assert 1 <= count <= 2  # one a thread
    assert not [t for t in threading.enumerate() if t.name.startswith("ckptdiff")]


def test_weights_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_into = reading.read_into

    def reads(fd: int, offset: int, array: Array) -> None:
        sizes.append(array.nbytes)
        read_into(fd, offset, array)

    monkeypatch.setattr(reading, "read_into", reads)
    rows = 5 * CHUNK_ELEMENTS // 1024
    weight = np.random.default_rng(1).normal(0, 0.02, (rows, 1024)).astype(ml_dtypes.bfloat16)
    scale = np.abs(weight.astype(np.float32)).max() / np.float32(448)
    codes = (weight.astype(np.float32) / scale).astype(ml_dtypes.bfloat16)
    name = "model.layers.0.mlp.down_proj"
    base = {f"{name}.weight": Spec("BF16", weight.shape, "", weight.tobytes())}
    scheme = {
        f"{name}.weight": Spec(
            "F8_E4M3", weight.shape, "", codes.astype(ml_dtypes.float8_e4m3fn).tobytes()
        ),
        f"{name}.weight_scale": Spec("F32", (), "", scale.tobytes()),
        f"{name}.input_scale": Spec("F32", (), "input"),
    }
    (tmp_path / "base").mkdir()
    write_weights(tmp_path / "base", base)
    write_json(tmp_path / "base" / "config.json", config(1))
    write_scheme(tmp_path / "quantized" / "one", scheme, layers=1)
    (proof,) = proofs(tmp_path / "quantized").values()
    assert proof.status == "proven" and proof.codes == weight.size
    assert max(sizes) <= 2 * CHUNK_ELEMENTS and len(sizes) >= 15
