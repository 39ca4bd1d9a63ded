"""The second run reads nothing, and nothing wrong is ever remembered."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from build import SweepSpec, as_float32, base_tensors, write_shard, write_sweep
from command import obey_permissions

import ckptdiff
from ckptdiff.events import Event, Started
from ckptdiff.records.report import CheckReport
from ckptdiff.sources.cache import Cache

pytestmark = pytest.mark.usefixtures("only_mtime_settles")

SPEC = SweepSpec()


@pytest.fixture
def settled(sweep: Path) -> Path:
    """A sweep whose files were last written to a while ago."""
    age(sweep.parent)
    return sweep


def age(root: Path) -> None:
    for path in root.rglob("*.safetensors"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


def run(root: Path, **options: object) -> tuple[CheckReport, int]:
    """The report and the bytes of tensor data that were read for it."""
    read: list[int] = []

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.unit == "bytes":
            read.append(event.total or 0)

    return ckptdiff.check(root, sink=sink, **options), sum(read)  # type: ignore[arg-type]


def everything(root: Path) -> int:
    checkpoints = [*root.iterdir(), root.parent / "base"]
    scanned = [ckptdiff.scan(path).schemes[0].bytes for path in checkpoints]
    return sum(scanned)


def test_the_second_run_reads_no_tensor(settled: Path) -> None:
    first, read = run(settled)
    assert read == everything(settled)
    second, read = run(settled)
    assert read == 0
    assert second == first


def test_casts_are_remembered_too(settled: Path) -> None:
    wide = {name: as_float32(spec) for name, spec in base_tensors().items()}
    write_shard(settled.parent / "base" / "model.safetensors", wide)
    age(settled.parent)
    first, read = run(settled)
    assert read > everything(settled)
    assert run(settled) == (first, 0)


def test_flaws_are_remembered_too(settled: Path) -> None:
    path = settled / SPEC.scheme(30) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = b"\xff\xff\xff\xff"  # the last tensor is a float32 scale or a BF16 norm
    path.write_bytes(data)
    age(settled)
    first, _ = run(settled)
    assert {f.code for f in first.findings} >= {"CK205"} or {f.code for f in first.findings} >= {
        "CK203"
    }
    assert run(settled) == (first, 0)


def test_no_cache_neither_reads_nor_writes(settled: Path, cache_home: Path) -> None:
    _, read = run(settled, cache=False)
    assert read == everything(settled)
    assert list(cache_home.iterdir()) == []


def test_rehash_believes_nothing_and_mends_the_cache(settled: Path) -> None:
    run(settled)
    assert run(settled, rehash=True)[1] == everything(settled)
    assert run(settled)[1] == 0


def test_a_changed_file_is_read_again(settled: Path) -> None:
    run(settled)
    path = settled / SPEC.scheme(30) / "model.safetensors"
    path.write_bytes(path.read_bytes())
    age(settled)
    _, read = run(settled)
    assert 0 < read < everything(settled)


def test_a_file_that_was_just_written_is_not_remembered(sweep: Path) -> None:
    run(sweep)
    assert run(sweep)[1] == everything(sweep)


def test_a_copy_in_place_of_another_is_noticed(settled: Path) -> None:
    """The founding bug after a clean run: same size and times, another inode."""
    run(settled)
    source = settled / SPEC.scheme(50) / "model.safetensors"
    target = settled / SPEC.scheme(100) / "model.safetensors"
    target.unlink()
    target.write_bytes(source.read_bytes())
    age(settled)
    assert "CK501" in {f.code for f in run(settled)[0].findings}


def test_a_file_that_changes_while_it_is_read_is_not_remembered(settled: Path) -> None:
    path = settled / SPEC.scheme(30) / "model.safetensors"
    before = path.read_bytes()

    def meddle(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "hash":
            path.write_bytes(before[:-1] + b"\x01")

    report = ckptdiff.check(settled, sink=meddle)
    assert report.unread
    path.write_bytes(before)
    age(path.parent)
    report, read = run(settled)
    assert read == ckptdiff.scan(settled / SPEC.scheme(30)).schemes[0].bytes
    assert report.unread == ()


def database(cache_home: Path) -> Path:
    return cache_home / "ckptdiff" / "results.sqlite"


@pytest.mark.parametrize("content", [b"", b"not a database at all " * 100, b"SQLite format 3\0"])
def test_a_corrupt_cache_is_made_anew(settled: Path, cache_home: Path, content: bytes) -> None:
    first, _ = run(settled)
    database(cache_home).write_bytes(content)
    assert run(settled) == (first, everything(settled))
    assert run(settled) == (first, 0)


def test_a_damaged_entry_is_not_believed(settled: Path, cache_home: Path) -> None:
    first, _ = run(settled)
    with sqlite3.connect(database(cache_home)) as connection:
        rows = connection.execute("select key, blob from blobs").fetchall()
        for key, blob in rows:
            damaged = bytearray(blob)
            damaged[20] ^= 1
            connection.execute("update blobs set blob = ? where key = ?", (bytes(damaged), key))
    connection.close()
    assert run(settled) == (first, everything(settled))


def test_a_cache_that_cannot_be_written(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert run(settled)[1] == run(settled)[1] == everything(settled)


def test_a_cache_that_may_only_be_read(tmp_path: Path) -> None:
    """The digests of somebody else are used, and none can be added to them."""
    root = write_sweep(tmp_path)
    age(tmp_path)
    home = tmp_path / "cache"
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import ckptdiff\nfrom ckptdiff.jobs import caching\n"
        "caching.is_settled = lambda shard, now: True\n"
        "total = []\n"
        "ckptdiff.check(sys.argv[1], sink=lambda e: total.append(getattr(e, 'total', 0)"
        " if getattr(e, 'unit', '') == 'bytes' else 0))\n"
        "print(sum(total))"
    )
    package = str(Path(ckptdiff.__file__).parents[1])
    command = [sys.executable, "-c", script, str(root), package]
    environment = os.environ | {"XDG_CACHE_HOME": str(home)}

    def read(obedient: bool = False) -> int:
        run = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=obey_permissions if obedient else None,
        )
        assert run.returncode == 0, run.stderr
        return int(run.stdout)

    assert read() > 0
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert read(obedient=True) == 0


def test_a_cache_on_a_full_disk(sweep: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for it: every write beyond it fails."""
    age(sweep.parent)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    script = (
        "import sys, ckptdiff; from ckptdiff.jobs import caching\n"
        "caching.is_settled = lambda shard, now: True\n"
        "print(ckptdiff.check(sys.argv[1]).verdict.status)"
    )
    command = [sys.executable, "-c", script, str(sweep)]
    for _ in range(2):
        done = subprocess.run(
            command, preexec_fn=limit, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "pass\n"), done.stderr


def test_two_processes_at_once(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    script = (
        "import sys; from pathlib import Path; from ckptdiff.sources.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "for n in range(50): cache.put({sys.argv[2].encode() + bytes([n]): bytes([n]) * 100})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(cache), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    keys = [name.encode() + bytes([n]) for name in "ab" for n in range(50)]
    found = Cache(cache).get(keys)
    assert set(found) == set(keys)
    assert all(blob == key[1:] * 100 for key, blob in found.items())


def test_a_writer_that_is_killed_leaves_a_cache_that_works(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    script = (
        "import os, sys; from pathlib import Path; from ckptdiff.sources.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "print(flush=True)\n"
        "while True: cache.put({os.urandom(8): bytes(100_000) for _ in range(50)})"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(cache)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
        Cache(cache).put({b"key": b"blob"})
        assert Cache(cache).get([b"key"]) == {b"key": b"blob"}


def test_many_keys_at_once(tmp_path: Path) -> None:
    blobs = {str(n).encode(): b"x" for n in range(3_000)}
    cache = Cache(tmp_path / "c.sqlite")
    cache.put(blobs)
    assert cache.get(blobs) == blobs


def test_other_users_cannot_look_into_the_cache(settled: Path, cache_home: Path) -> None:
    run(settled)
    assert stat.S_IMODE((cache_home / "ckptdiff").stat().st_mode) == 0o700
