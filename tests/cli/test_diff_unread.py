"""`ckptdiff diff`: what could not be compared or read never passes for the same."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from build import Spec, fp8_tensors, write_weights
from command import run

import ckptdiff
from ckptdiff.events import Event, Started
from tests.cli.diffing import FP8, SPEC, different, plain, row, write


def test_a_weight_without_its_scale(base: Path, twin: Path) -> None:
    changed = fp8_tensors(SPEC.selected(50))
    del changed[f"{FP8}.weight_scale"]
    write_weights(twin, changed, shards=3)
    report = ckptdiff.diff(base, twin)
    assert row(report, f"{FP8}.weight").reason == "there is no weight_scale"
    assert row(report, f"{FP8}.weight").status == "unread"
    assert "1 tensor could not be compared" in report.sentence


def test_scales_that_do_not_fit(base: Path, twin: Path) -> None:
    changed = fp8_tensors(SPEC.selected(50))
    changed[f"{FP8}.weight_scale"] = Spec("F32", (3,), "odd")
    changed[f"{FP8}.pre_quant_scale"] = Spec("BF16", (3,), "odd")
    other = FP8.replace("layers.3", "layers.2")
    changed[f"{other}.pre_quant_scale"] = Spec("BF16", (3,), "odd")
    write_weights(twin, changed, shards=3)
    report = ckptdiff.diff(base, twin)
    assert row(report, f"{FP8}.weight").status == "unread"
    found = row(report, f"{other}.weight")
    assert found.status == "unread" and "pre_quant_scale" in (found.reason or "")


def test_dtypes_without_numbers(tmp_path: Path) -> None:
    a = {"x": Spec("F8_E8M0", (4,), "a"), "y": Spec("U8", (4,), "a"), "w": Spec("I8", (4,), "a")}
    b = {key: Spec(spec.dtype, spec.shape, "b") for key, spec in a.items()}
    report = ckptdiff.diff(write(tmp_path / "a", a), write(tmp_path / "b", b))
    assert set(different(report).values()) == {"changed"}
    assert all(r.changed_share for r in report.tensors)


def test_a_truncated_shard_is_not_a_difference(scheme: Path, twin: Path) -> None:
    path = sorted(twin.glob("*.safetensors"))[1]
    data = path.read_bytes()
    path.write_bytes(data[:-64])
    done = run("diff", scheme, twin, "--json")
    document = done.report
    assert (done.code, document["verdict"]) == (2, "incomplete")
    assert document["total"]["changed"] == document["total"]["only_a"] == 0
    assert document["total"]["unread"] > 0
    assert path.name in document["unread"][0]["path"]


def test_a_lost_shard_makes_its_tensors_unknown(scheme: Path, twin: Path) -> None:
    sorted(twin.glob("*.safetensors"))[1].unlink()
    report = ckptdiff.diff(scheme, twin)
    assert set(different(report).values()) == {"unread"}, different(report)
    assert report.verdict == "incomplete"
    assert ckptdiff.exit_code(report) == 2
    assert not any(group.changed for group in (*report.kinds, *report.layers))


def test_when_nothing_could_be_read_nothing_is_the_same(tmp_path: Path) -> None:
    sides = [write(tmp_path / name, {"x.weight": plain(np.ones(64))}) for name in "ab"]
    file = sides[1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    report = ckptdiff.diff(*sides)
    assert (report.verdict, report.sentence) == (
        "incomplete",
        "nothing of A and B could be compared",
    )


def test_a_difference_outweighs_what_is_unread(base: Path, twin: Path) -> None:
    sorted(twin.glob("*.safetensors"))[0].unlink()
    assert run("diff", base, twin).code == 1


def test_a_file_that_changes_between_hashing_and_reading(base: Path, scheme: Path) -> None:
    def change(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "compare":
            path = scheme / "model.safetensors"
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)

    report = ckptdiff.diff(base, scheme, sink=change)
    assert {r.status for r in report.tensors} == {"same", "unread"}
    reasons = {r.reason for r in report.tensors if r.status == "unread"}
    assert reasons == {"changed while it was read"}


def test_overlapping_tensors(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"x": plain(np.ones(4)), "y": plain(np.ones(4))})
    raw = (a / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    header["y"]["data_offsets"] = [4, 12]
    changed = json.dumps(header).encode()
    b = tmp_path / "b"
    b.mkdir()
    (b / "model.safetensors").write_bytes(
        struct.pack("<Q", len(changed)) + changed + raw[8 + size :]
    )
    report = ckptdiff.diff(a, b)
    assert {r.status for r in report.tensors} == {"unread"}
    hashed = ckptdiff.hash(b)
    assert [item.path for item in hashed.unread] == ["model.safetensors"]
    assert ckptdiff.exit_code(hashed) == 2


def test_files_that_an_index_names_and_nothing_else(scheme: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b"
    odd.mkdir()
    index = {"weight_map": {"x.weight": "model-1.bin"}}
    (odd / "model.safetensors.index.json").write_text(json.dumps(index))
    done = run("diff", scheme, odd)
    assert done.code == 2
    assert "none of the files that its index names: model-1.bin is not there" in done.err
    assert f"`ckptdiff check '{odd}'`" in done.err


def test_a_link_to_nothing(scheme: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    done = run("diff", scheme, tmp_path / "link")
    assert done.code == 2 and "is a link to what does not exist" in done.err


def test_a_tensor_that_the_index_alone_has(scheme: Path, twin: Path) -> None:
    index = twin / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    file = next(iter(document["weight_map"].values()))
    document["weight_map"] |= {"model.ghost.weight": file, "model.lost.weight": file}
    index.write_text(json.dumps(document))
    done = run("diff", scheme, twin, "--json")
    assert done.code == 2
    (unread,) = done.report["unread"]
    assert unread["path"].endswith(index.name)
    assert unread["reason"] == "names model.ghost.weight and 1 more: in no shard"
    # One that lies in another shard than the index says is compared.
    del document["weight_map"]["model.ghost.weight"], document["weight_map"]["model.lost.weight"]
    name, home = next(iter(document["weight_map"].items()))
    document["weight_map"][name] = next(f for f in document["weight_map"].values() if f != home)
    index.write_text(json.dumps(document))
    assert run("diff", scheme, twin).code == 0
