"""Indices that name what is not there, or what is none of their business."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import check
from forging import INDEX, SECOND, SINGLE, edit


def test_shard_missing_by_index(sharded: Path) -> None:
    (sharded / "one" / SECOND).unlink()
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK103"})


def test_shard_missing_by_numbering(sharded: Path) -> None:
    (sharded / "one" / SECOND).unlink()
    (sharded / "one" / INDEX).unlink()
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK103"})


@pytest.mark.parametrize("count", ["00003", "20000", "99999999999999999999"])
def test_series_that_claims_more_shards(root: Path, count: str) -> None:
    one = root / "one"
    (one / SINGLE).rename(one / f"model-00001-of-{count}.safetensors")
    result = check(root)
    assert (result.code, result.codes) == (1, {"CK103"})


def test_ghost_tensor(sharded: Path) -> None:
    edit(sharded / "one" / INDEX, lambda d: d["weight_map"].update({"ghost": SECOND}))
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK104"})
    (finding,) = (f for f in result.report["findings"] if f["code"] == "CK104")
    assert [place["tensor"] for place in finding["locations"]] == ["ghost"]


@pytest.mark.parametrize(
    "path",
    ["../../outside.safetensors", "{outside}", "a/../../../outside.safetensors", "..", "",
     "..\\outside.safetensors", "out\0side.safetensors"],
)  # fmt: skip
def test_index_that_leads_out(sharded: Path, tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside.safetensors"
    shutil.copy(sharded / "one" / SECOND, outside)
    path = path.format(outside=outside)
    edit(sharded / "one" / INDEX, lambda d: d["weight_map"].update({"model.norm.weight": path}))
    with watched(outside) as opened:
        result = check(sharded)
        assert not opened(), "a file outside the checkpoint was opened"
        outside.read_bytes()
        assert opened(), "the watch does not work"
    assert result.code == 1
    assert "CK105" in result.codes


class watched:
    """Whether the kernel saw somebody open the file, by inotify."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Callable[[], bool]:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        in_open = 0x20
        assert libc.inotify_add_watch(self.fd, os.fsencode(self.path), in_open) >= 0
        return self._opened

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _opened(self) -> bool:
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False


@pytest.mark.parametrize(
    "shard", ["x" * 300, "9" * 5_000, "no/such/folder.safetensors", "\ud800", f"{SECOND}/x", "."]
)
def test_index_that_leads_nowhere(sharded: Path, shard: str) -> None:
    edit(sharded / "one" / INDEX, lambda d: d["weight_map"].update({"model.norm.weight": shard}))
    result = check(sharded)
    assert result.code in (1, 2)
    assert result.codes <= {"CK101", "CK103"}
