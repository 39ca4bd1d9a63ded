"""Shards that are broken, forged, or no files at all."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from command import check, run
from forging import (
    DEEP,
    DIGITS,
    INDEX,
    SINGLE,
    dangling,
    device,
    directory,
    fifo,
    framed,
    loop,
    socket,
    write_one,
)


def test_the_schemes_of_these_tests_are_healthy(root: Path, tmp_path: Path) -> None:
    write_one(tmp_path / "root/two", shards=2, salt="two")
    result = check(root)
    assert result.code == 0
    assert result.codes == set()
    assert result.report["verdict"]["complete"]


BROKEN_SHARDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut-in-data": (lambda raw: raw[:-5], "CK102"),
    "cut-in-header": (lambda raw: raw[:100], "CK102"),
    "cut-in-length": (lambda raw: raw[:5], "CK102"),
    "empty": (lambda raw: b"", "CK102"),
    "header-of-0": (lambda raw: bytes(8) + raw[8:], "CK101"),
    "header-of-2^62": (lambda raw: struct.pack("<Q", 1 << 62) + raw[8:], "CK101"),
    "header-of-2^64-1": (lambda raw: b"\xff" * 8 + raw[8:], "CK101"),
    "not-json": (lambda raw: framed(b"{not json"), "CK101"),
    "not-utf-8": (lambda raw: framed(b'{"\xff\xfe": 1}'), "CK101"),
    "a-list": (lambda raw: framed(b"[]"), "CK101"),
    "nested": (lambda raw: framed(DEEP), "CK101"),
    "nested-in-entry": (lambda raw: framed(b'{"a":' + DEEP + b"}"), "CK101"),
    "nested-in-metadata": (lambda raw: framed(b'{"__metadata__":' + DEEP + b"}"), "CK101"),
    "digits-in-offsets": (
        lambda raw: framed(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,' + DIGITS + b"]}}", b"x"
        ),
        "CK101",
    ),
    "digits-in-shape": (
        lambda raw: framed(
            b'{"a":{"dtype":"U8","shape":[' + DIGITS + b'],"data_offsets":[0,1]}}', b"x"
        ),
        "CK101",
    ),
    "digits-in-metadata": (
        lambda raw: framed(b'{"__metadata__":{"format":' + DIGITS + b"}}"),
        "CK101",
    ),
    "text": (lambda raw: b"This model was moved to another place, sorry.\n", "CK101"),
    "lfs-pointer": (
        lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "CK101",
    ),
}


@pytest.mark.parametrize("case", BROKEN_SHARDS)
def test_broken_shard(root: Path, case: str) -> None:
    change, code = BROKEN_SHARDS[case]
    file = root / "one" / SINGLE
    file.write_bytes(change(file.read_bytes()))
    result = check(root)
    assert result.code == 1
    assert result.codes == {code}
    assert result.report["verdict"]["safe"] == []


def test_a_name_of_megabytes_is_no_reason_to_hang(root: Path) -> None:
    name = b"x" * 5_000_000
    header = b'{"' + name + b'":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}'
    (root / "one" / SINGLE).write_bytes(framed(header, b"x"))
    result = run("check", root)
    assert result.code == 1
    assert "CK101" in result.text
    assert len(result.text) < 10_000


NO_FILES = {
    "fifo": (fifo, "CK101"),
    "directory": (directory, "CK101"),
    "socket": (socket, "CK101"),
    "device": (device, "CK101"),
    "loop": (loop, None),
    "dangling": (dangling, None),
}
PLACES = (
    SINGLE,
    "config.json",
    "hf_quant_config.json",
    "layer-sensitivity/one_coverage_from_baseline.json",
    f"layer-sensitivity/{build.BASELINE}_quant_manifest.json",
)


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("place", PLACES)
def test_no_regular_file(root: Path, kind: str, place: str) -> None:
    make, code = NO_FILES[kind]
    make(root / "one" / place)
    result = check(root)
    if code is None:
        assert result.code == 2
        assert list(result.unread) == [f"one/{place}"]
        assert result.codes == set()
    else:
        assert result.code == 1
        assert result.codes == {code}
    assert not result.report["verdict"]["safe"]


def test_no_regular_file_as_index(sharded: Path) -> None:
    fifo(sharded / "one" / INDEX)
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK101"})


def test_manifest_folder_that_is_none(root: Path) -> None:
    folder = root / "one/layer-sensitivity"
    shutil.rmtree(folder)
    loop(folder)
    result = check(root)
    assert result.code == 2
    assert "one/layer-sensitivity" in result.unread
