"""Files that are not what they were when their headers were read, or cannot be read at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptdiff.analysis.hashing import digests as hashing
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard
from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.digests import ShardDigests
from tests.unit.analysis.hashing.shards import (
    MIB,
    Inline,
    digests,
    one_shot,
    random_bytes,
    reason,
    write,
)


def test_a_truncated_file_keeps_what_is_there(tmp_path: Path) -> None:
    data = random_bytes({"a": 100, "b": 3 * MIB, "c": 5})
    path = Path(write(tmp_path / "a.safetensors", data).path)
    os.truncate(path, path.stat().st_size - 6)
    shard = read_shard(tmp_path, path.name)
    assert digests(shard) == {"a": one_shot(data["a"])}


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 12345))


def swap(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


CHANGES = pytest.mark.parametrize("change", [shrink, grow, touch, swap])


@CHANGES
def test_changed_since_the_header_was_read(tmp_path: Path, change: Callable[[Path], None]) -> None:
    good = write(tmp_path / "good.safetensors", {"t": b"1234"})
    bad = write(tmp_path / "bad.safetensors", {"t": b"1234"})
    change(Path(bad.path))
    results = hash_shards([bad, good])
    assert results[bad.path] == ShardDigests({}, Unread(bad.name, "changed while it was read"))
    assert results[good.path] == ShardDigests({"t": one_shot(b"1234")})


@CHANGES
def test_changed_between_two_units(
    tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "UNIT_BYTES", MIB)
    shard = write(tmp_path / "a.safetensors", random_bytes({"a": 2 * MIB, "b": 2 * MIB, "c": 9}))

    def after(number: int) -> None:
        if number == 1:
            change(Path(shard.path))

    assert reason(shard, executor=Inline(after)) == "changed while it was read"


@pytest.mark.parametrize("change", [shrink, grow, touch])
@pytest.mark.parametrize("sizes", [{"a": 3 * MIB}, {"a": MIB, "b": MIB, "c": MIB}])
def test_changed_within_a_unit(
    tmp_path: Path,
    change: Callable[[Path], None],
    sizes: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = write(tmp_path / "a.safetensors", random_bytes(sizes))
    fill, calls = hashing._fill, 0

    def changing(fd: int, view: memoryview, offset: int) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            change(Path(shard.path))
        return fill(fd, view, offset)

    monkeypatch.setattr(hashing, "_fill", changing)
    assert reason(shard, jobs=1) == "changed while it was read"


def test_a_short_read_of_an_unchanged_file_is_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write(tmp_path / "a.safetensors", {"t": b"1234"})
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: 0)
    assert reason(shard) == "ended before its data did"


def test_reads_that_return_a_few_bytes_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_bytes({"a": 1000, "b": 2 * MIB})
    shard = write(tmp_path / "a.safetensors", data)
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:300_007]], offset)
    )
    assert digests(shard) == {name: one_shot(content) for name, content in data.items()}


def test_an_input_error_is_unread_and_the_rest_of_the_file_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "UNIT_BYTES", 10)
    shard = write(tmp_path / "a.safetensors", random_bytes({"a": 2 * MIB, "b": 2 * MIB}))
    calls = 0

    def broken(fd: int, views: object, offset: int) -> int:
        nonlocal calls
        calls += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    assert reason(shard, executor=Inline()) == "input/output error"
    assert calls == 1


def vanish(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("change", [vanish, directory, fifo, loop])
def test_what_cannot_be_opened_is_unread(tmp_path: Path, change: Callable[[Path], None]) -> None:
    good = write(tmp_path / "good.safetensors", {"t": b"1234"})
    bad = write(tmp_path / "bad.safetensors", {"t": b"1234"})
    change(Path(bad.path))
    assert reason(bad)
    assert hash_shards([bad, good])[good.path].digests == {"t": one_shot(b"1234")}


def test_no_permission_is_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write(tmp_path / "a.safetensors", {"t": b"1234"})

    def refused(*arguments: object, **options: object) -> int:  # root may open everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        assert "permission" in reason(shard).lower()
