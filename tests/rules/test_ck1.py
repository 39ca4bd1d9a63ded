"""CK1, container and index: each rule fires on one fault, alone, and is silent without it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from build import SweepSpec, check, write_sweep

import ckptdiff
from ckptdiff.records.finding import Finding

SPEC = SweepSpec(shards=2)
FIRST = "model-00001-of-00002.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sweep(tmp_path, SPEC)


@pytest.fixture
def scheme(root: Path) -> Path:
    return root / SPEC.scheme(30)


def only(root: Path, code: str) -> Finding:
    """The one finding of a sweep with one fault. Its scheme alone is to blame."""
    report = check(root)
    assert [f.code for f in report.findings] == [code]
    (finding,) = report.findings
    assert finding.schemes == (SPEC.scheme(30),)
    assert SPEC.scheme(30) not in report.verdict.safe
    assert set(report.verdict.safe) == {SPEC.scheme(p) for p in (10, 50, 100)}
    assert ckptdiff.exit_code(report) == 1
    return finding


def edit_header(shard: Path, edit: object) -> None:
    """Rewrite the header of `shard` by `edit(header)`, the data as it is."""
    raw = shard.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    edit(header)  # type: ignore[operator]
    text = json.dumps(header).encode()
    shard.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def tensors_of(header: dict[str, object]) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def edit_index(scheme: Path, edit: object) -> None:
    path = scheme / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index)  # type: ignore[operator]
    path.write_text(json.dumps(index))


def test_all_ck1_clean(root: Path) -> None:
    assert check(root).findings == ()


def test_ck101_fires(root: Path, scheme: Path) -> None:
    (scheme / "config.json").write_text('{"architectures": [}')
    finding = only(root, "CK101")
    assert finding.locations[0].shard == "config.json"
    assert finding.locations[0].offset == 19


def test_ck101_fires_on_a_header(root: Path, scheme: Path) -> None:
    (scheme / FIRST).write_bytes(struct.pack("<Q", 2**62) + b"{}")
    finding = only(root, "CK101")
    assert finding.locations[0].shard == FIRST


def test_ck102_fires(root: Path, scheme: Path) -> None:
    os.truncate(scheme / FIRST, (scheme / FIRST).stat().st_size - 10)
    assert only(root, "CK102").locations[0].shard == FIRST


def test_ck103_fires(root: Path, scheme: Path) -> None:
    (scheme / FIRST).unlink()
    assert only(root, "CK103").locations[0].shard == FIRST


def test_ck103_fires_without_an_index(root: Path, scheme: Path) -> None:
    (scheme / "model.safetensors.index.json").unlink()
    (scheme / FIRST).unlink()
    assert only(root, "CK103").locations[0].shard == FIRST


def test_ck104_fires(root: Path, scheme: Path) -> None:
    edit_index(scheme, lambda index: index["weight_map"].update({"ghost.weight": FIRST}))
    finding = only(root, "CK104")
    assert [place.tensor for place in finding.locations] == ["ghost.weight"]


@pytest.mark.parametrize("target", ["../../x.safetensors", "/etc/passwd", "a/../../b", "c\\..\\d"])
def test_ck105_fires(root: Path, scheme: Path, target: str) -> None:
    edit_index(scheme, lambda index: index["weight_map"].update({"ghost.weight": target}))
    assert only(root, "CK105").locations[0].actual == target


def test_ck106_fires(root: Path, scheme: Path) -> None:
    for path in scheme.glob("model*"):
        path.unlink()
    only(root, "CK106")


def test_ck107_fires(root: Path, scheme: Path) -> None:
    def overlap(header: dict[str, dict[str, list[int]]]) -> None:
        first, second = tensors_of(header)[:2]  # type: ignore[arg-type]
        start, end = header[second]["data_offsets"]
        header[second]["data_offsets"] = [start - 16, end - 16]
        assert header[first]["data_offsets"][1] == start

    edit_header(scheme / FIRST, overlap)
    report = check(root)
    codes = {f.code for f in report.findings}
    assert codes <= {"CK107", "CK108"}  # moving a tensor leaves a hole behind it
    assert "CK107" in codes


def test_ck108_fires(root: Path, scheme: Path) -> None:
    with (scheme / FIRST).open("ab") as file:
        file.write(bytes(16))
    size = (scheme / FIRST).stat().st_size
    finding = only(root, "CK108")
    assert finding.locations[0].offset == size - 16
