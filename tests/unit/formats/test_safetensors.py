"""Sound headers, the frame around them, and files that hold them."""

import gc
import json
import os
import threading

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ckptdiff.formats import safetensors as fast
from ckptdiff.formats.safetensors import MAX_HEADER, parse_header, read_shard
from ckptdiff.records.checkpoint import Tensor
from tests.unit.formats.headers import SOUND, A, framed, parse


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_header_has_no_defects_and_the_reference_accepts_it(case):
    header, data_bytes = SOUND[case]
    raw = framed(header, data_bytes)
    parsed, defects = parse_header(raw, len(raw), "f")
    assert defects == ()
    expected = json.loads(header)
    metadata = expected.pop("__metadata__", None) or {}
    assert parsed.metadata == metadata
    assert list(parsed.tensors) == list(expected)
    for name, tensor in parsed.tensors.items():
        assert tensor == Tensor(
            expected[name]["dtype"],
            tuple(expected[name]["shape"]),
            tuple(expected[name]["data_offsets"]),
        )
    assert parsed.data_start == len(raw) - data_bytes
    assert len(safetensors.deserialize(raw)) == len(parsed.tensors)


PLAIN = ["plain", "two", "out of order", "empty", "metadata", "metadata not ASCII", "white space"]


@pytest.mark.parametrize("case", [*PLAIN, "padding", "name is a key", "zero-size between"])
def test_plainly_written_headers_take_the_fast_path(case):
    header, data_bytes = SOUND[case]
    assert fast._parse_plain(header.encode(), data_bytes) is not None


# --- The frame ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(8))
def test_a_file_that_is_shorter_than_the_length_field(size):
    (defect,) = parse_header(bytes(size), size, "f")[1]
    assert (defect.kind, defect.offset) == ("truncated", size)
    assert defect.actual == f"{size} bytes"


@pytest.mark.parametrize(
    ("length", "kind"),
    [
        (0, "malformed"),
        (3, "truncated"),
        (MAX_HEADER, "truncated"),
        (MAX_HEADER + 1, "malformed"),
        (1 << 62, "malformed"),
        ((1 << 64) - 1, "malformed"),
    ],
)
def test_a_header_length_that_cannot_be(length, kind):
    raw = length.to_bytes(8, "little") + b"{}"
    parsed, (defect,) = parse_header(raw, len(raw), "f")
    assert parsed is None
    assert defect.kind == kind
    assert defect.offset == (0 if kind == "malformed" else 10)


def test_a_text_file():
    text = b"This is a text file, not a checkpoint.\n"
    (defect,) = parse_header(text, len(text), "f")[1]
    assert (defect.kind, defect.offset) == ("malformed", 0)
    assert "text file" in defect.message


def test_a_git_lfs_pointer():
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (defect,) = parse_header(text, len(text), "f")[1]
    assert "Git LFS pointer" in defect.message


# --- Files --------------------------------------------------------------------------------


def test_a_shard_of_the_reference_library(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.int8)}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", {"format": "np"})
    shard = read_shard(tmp_path, "m.safetensors")
    assert (shard.defects, shard.unread) == ((), None)
    assert shard.header.metadata == {"format": "np"}
    assert shard.identity.size == (tmp_path / "m.safetensors").stat().st_size
    content = (tmp_path / "m.safetensors").read_bytes()
    for name, array in tensors.items():
        start, end = shard.tensors[name].data_offsets
        data_start = shard.header.data_start
        assert content[data_start + start : data_start + end] == array.tobytes()


@pytest.mark.timeout(10)
def test_things_that_are_no_files_are_malformed(tmp_path):
    os.mkfifo(tmp_path / "fifo.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    for name in ("fifo", "folder", "device"):
        shard = read_shard(tmp_path, f"{name}.safetensors")
        assert [d.kind for d in shard.defects] == ["malformed"]
        assert (shard.header, shard.unread) == (None, None)


def test_files_that_cannot_be_looked_at_are_unread(tmp_path):
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("loop.safetensors", "absent.safetensors", "n" * 300):
        shard = read_shard(tmp_path, name)
        assert shard.unread.path == name
        assert (shard.header, shard.defects) == (None, ())


def test_a_file_that_changes_while_it_is_read_is_unread(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_bytes(framed("{}"))
    read_range = fast.read_range

    def change_then_read(fd, offset, length):
        path.write_bytes(framed("{}  "))
        return read_range(fd, offset, length)

    monkeypatch.setattr(fast, "read_range", change_then_read)
    shard = read_shard(tmp_path, "m.safetensors")
    assert "changed" in shard.unread.reason


def test_a_huge_stated_length_is_not_read(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little"))
    os.truncate(path, 1 << 41)  # sparse
    (defect,) = read_shard(tmp_path, "m.safetensors").defects
    assert defect.kind == "malformed"


# --- The garbage collector ----------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        parse(f'{{"a":{A}}}')
        parse("{")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_the_garbage_collector_stays_off_until_the_last_thread_is_done():
    pause = fast._GcPause()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with pause.paused():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    with pause.paused():
        thread.start()
        assert entered.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()
