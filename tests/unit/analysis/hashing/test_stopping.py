"""Progress of hashing, its threads, how it stops, and the memory that it takes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.errors import Cancelled
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started
from tests.unit.analysis.hashing.shards import (
    ENDLESS,
    MIB,
    Inline,
    digests,
    random_bytes,
    sparse,
    write,
)


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


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
            cancelled_at = time.process_time()
            cancel.cancel()

    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(2)) if shared else None
        with pytest.raises(Cancelled):
            hash_shards([shard], sink=sink, cancel=cancel, executor=executor)
        assert time.process_time() - cancelled_at < 1.0  # a tenth of it by each thread


INTERRUPTED = """
import sys, threading, time
from pathlib import Path
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.events import Advanced
from ckptdiff.formats.safetensors import read_shard

last = 0.0

def sink(event):
    global last
    if isinstance(event, Advanced):
        last = time.process_time()
        print("running", flush=True)

try:
    hash_shards([read_shard(Path(sys.argv[1]), "a.safetensors")], sink=sink)
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), time.process_time() - last, flush=True)
"""

OFTEN_INTERRUPTED = """
import signal, sys, threading
from pathlib import Path
from ckptdiff.analysis.hashing.digests import hash_shards
from ckptdiff.formats.safetensors import read_shard

shard = read_shard(Path(sys.argv[1]), "a.safetensors")
signal.signal(signal.SIGALRM, signal.default_int_handler)
for number in range(1, 101):
    try:
        # Again after a second: Python drops an interrupt that falls into a weakref callback.
        signal.setitimer(signal.ITIMER_REAL, number / 5000, 1)
        hash_shards([shard])
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A first thread whose start was interrupted is counted for ever, but has no workers.
        while any(thread.name.startswith("ckptdiff_") for thread in threading.enumerate()):
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
        child.send_signal(signal.SIGINT)
        said = child.stdout.read().splitlines()
    interrupted, threads, elapsed = said[-1].split()
    assert (interrupted, threads) == ("interrupted", "1")
    assert child.returncode == 0
    assert float(elapsed) < 1.0  # processor time since the last sign of life


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
