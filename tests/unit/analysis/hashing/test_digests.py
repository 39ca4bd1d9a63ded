"""Digests against the xxhsum program and the one-shot function; everything that can go
wrong with a file while it is read; and how the work stops."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdiff.analysis.hashing import digests as hashing
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.analysis.hashing.fingerprint import fingerprint
from ckptdiff.errors import Cancelled
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started
from ckptdiff.formats.safetensors import read_shard
from ckptdiff.records.checkpoint import Shard, Tensor, Unread
from ckptdiff.records.digests import ShardDigests

MIB = 1 << 20
ENDLESS = 1 << 40  # bytes of a sparse file that no test can wait for
EMPTY = xxhash.xxh3_128_digest(b"")


def write(path: Path, tensors: Mapping[str, bytes]) -> Shard:
    """A safetensors file of U8 tensors, read back."""
    sparse(path, {name: len(data) for name, data in tensors.items()})
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + length)
        file.write(b"".join(tensors.values()))
    return read(path)


def sparse(path: Path, sizes: Mapping[str, int]) -> Shard:
    """A safetensors file of U8 tensors of zeros that takes no room on the disk."""
    entries, end = {}, 0
    for name, size in sizes.items():
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return read(path)


def read(path: Path) -> Shard:
    shard = read_shard(path.parent, path.name)
    assert shard.header is not None
    return shard


def random_bytes(sizes: Mapping[str, int], seed: int = 0) -> dict[str, bytes]:
    random = Random(seed)
    return {name: random.randbytes(size) for name, size in sizes.items()}


def one_shot(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def xxhsum(path: Path) -> bytes:
    out = subprocess.run(["xxhsum", "-H2", str(path)], check=True, capture_output=True).stdout
    return bytes.fromhex(out.split()[0].decode())


def digests(shard: Shard, **options: Any) -> Mapping[str, bytes]:
    result = hash_shards([shard], **options)[shard.path]
    assert result.unread is None
    return result.digests


def reason(shard: Shard, **options: Any) -> str:
    result = hash_shards([shard], **options)[shard.path]
    assert result.digests == {}
    assert result.unread is not None
    assert result.unread.path == shard.name
    return result.unread.reason


class Inline(Executor):
    """Runs every task while it is submitted, and calls `after` when it is done."""

    def __init__(self, after: Callable[[int], None] = lambda number: None) -> None:
        self.after = after
        self.tasks = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        self.tasks += 1
        self.after(self.tasks)
        return future


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


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


# Files that are not what they were


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


# Progress, threads, stopping


def test_events(tmp_path: Path) -> None:
    sizes = {f"t{number}": 40 * MIB for number in range(15)}
    shards = [sparse(tmp_path / f"{name}.safetensors", sizes) for name in "ab"]
    events: list[Event] = []
    callers = set()

    def sink(event: Event) -> None:
        events.append(event)
        callers.add(threading.current_thread())

    begun = time.monotonic()
    hash_shards(shards, sink=sink)
    elapsed = time.monotonic() - begun
    started, *advanced, finished = events
    assert started == Started("hash", 2 * 15 * 40 * MIB, "bytes")
    assert finished == Finished("hash")
    assert sum(e.amount for e in advanced if isinstance(e, Advanced)) == started.total
    assert 1 <= len(advanced) <= elapsed * 20 + 1
    assert callers == {threading.current_thread()}


def test_an_executor_is_used_and_left_open(tmp_path: Path) -> None:
    shard = write(tmp_path / "a.safetensors", random_bytes({"a": 3 * MIB}))
    with ThreadPoolExecutor(3) as executor:
        assert digests(shard, executor=executor) == digests(shard, jobs=1)
        assert executor.submit(lambda: 42).result() == 42


@pytest.mark.usefixtures("no_thread_left")
def test_a_sink_that_raises_stops_everything(tmp_path: Path) -> None:
    shard = sparse(tmp_path / "a.safetensors", {"t": ENDLESS})

    def sink(event: Event) -> None:
        if isinstance(event, Advanced):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hash_shards([shard], sink=sink)


@pytest.mark.usefixtures("no_thread_left")
def test_cancelled_before_it_began(tmp_path: Path) -> None:
    events: list[Event] = []
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        hash_shards([], cancel=cancel, sink=events.append)
    assert events == []


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("kind", [Started, Advanced])
@pytest.mark.parametrize("shared", [False, True])
def test_cancelled_while_it_runs(tmp_path: Path, kind: type[Event], shared: bool) -> None:
    shard = sparse(tmp_path / "a.safetensors", {"t": ENDLESS})
    cancel = CancelToken()
    cancelled_at = 0.0

    def sink(event: Event) -> None:
        nonlocal cancelled_at
        if isinstance(event, kind) and not cancelled_at:
            cancelled_at = time.monotonic()
            cancel.cancel()

    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(2)) if shared else None
        with pytest.raises(Cancelled):
            hash_shards([shard], sink=sink, cancel=cancel, executor=executor)
        assert time.monotonic() - cancelled_at < 1.0  # 0.2 s, and what a busy machine adds


INTERRUPTED = """
import sys, threading
from pathlib import Path
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.events import Advanced
from ckptdiff.formats.safetensors import read_shard

def sink(event):
    if isinstance(event, Advanced):
        print("running", flush=True)

try:
    hash_shards([read_shard(Path(sys.argv[1]), "a.safetensors")], sink=sink)
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), flush=True)
"""

OFTEN_INTERRUPTED = """
import signal, sys, threading
from pathlib import Path
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard

shard = read_shard(Path(sys.argv[1]), "a.safetensors")
signal.signal(signal.SIGALRM, signal.default_int_handler)
for number in range(1, 101):
    # Again after a second: Python drops an interrupt that falls into a weakref callback.
    signal.setitimer(signal.ITIMER_REAL, number / 5000, 1)
    try:
        hash_shards([shard])
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        while threading.active_count() > 1:  # interrupted while its first thread started
            pass
print("done")
"""

# exec keeps the peak memory of the process that it was called in (pytest, and far above
# what is measured); a process that was only forked starts from its own size.
MEASURED = """
import os, resource, sys
from pathlib import Path
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard

if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
shard = read_shard(Path(sys.argv[1]), "a.safetensors")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(hash_shards([shard], jobs=4)[shard.path].digests) == 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    sparse(tmp_path / "a.safetensors", {"t": ENDLESS})
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        said = child.stdout.read().splitlines()
        elapsed = time.monotonic() - begun
    assert said[-1] == "interrupted 1"
    assert child.returncode == 0
    assert elapsed < 1.0  # 0.2 s, and the end of an interpreter on a busy machine


def test_the_calling_thread_never_submits(tmp_path: Path) -> None:
    # A KeyboardInterrupt within `submit` can leave an executor locked for ever.
    threads = set()
    executor = Inline(lambda number: threads.add(threading.current_thread()))
    digests(write(tmp_path / "a.safetensors", {"t": b"1234"}), executor=executor)
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_ctrl_c_at_any_moment_leaves_nothing_locked(tmp_path: Path) -> None:
    sparse(tmp_path / "a.safetensors", {"t": ENDLESS})  # thousands of units to submit
    done = subprocess.run(
        [sys.executable, "-c", OFTEN_INTERRUPTED, str(tmp_path)], capture_output=True, timeout=60
    )
    assert done.stdout == b"done\n", done.stderr


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    sparse(tmp_path / "a.safetensors", {"a": 700 * MIB, "b": 1300 * MIB})
    out = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], check=True, capture_output=True
    ).stdout
    assert int(out) / 1024 < 16  # MiB


# Fingerprints


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
