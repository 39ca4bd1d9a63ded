"""`ckptdiff reexport` on a full disk, beside other runs, on sources that change, and stopped."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, environment

import ckptdiff
from ckptdiff.errors import Cancelled
from ckptdiff.events import CancelToken, Event, Started
from ckptdiff.jobs import composing, placing
from ckptdiff.jobs.staging import reserved
from tests.cli.samples import BASE, NAME, PERCENTS, SWEEP, WHOLE, files, names, reexport


def test_a_full_disk_is_told_and_leaves_nothing(copied: Path, small: Path) -> None:
    """On a file system of 600 kB; where it cannot be mounted, with a limit on file sizes."""
    scheme = copied / NAME.format(10)
    before = files(scheme)
    planned = ckptdiff.plan_reexport(
        [scheme], engine="compose", base=BASE, donors=[WHOLE], out=small
    )
    with pytest.MonkeyPatch.context() as patch:
        # The room that there is when it begins may be gone when it is needed.
        patch.setattr(placing, "require_room", lambda plan: None)
        (outcome,) = ckptdiff.execute(planned).outcomes
    assert outcome.status == "failed"
    assert outcome.reason is not None and (
        "no space left" in outcome.reason or "file too large" in outcome.reason
    )
    assert "Make room" in (outcome.next_step or "")
    assert list(small.iterdir()) == []
    assert files(scheme) == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory in which a checkpoint of 1 MB finds no room."""
    path = tmp_path / "small"
    path.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, b"size=600k") == 0:
        yield path
        libc.umount(os.fsencode(path))
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, limits[1]))
    yield path
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room_is_noticed_before_anything_is_written(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = ckptdiff.plan_reexport(
        [copied / NAME.format(10)], engine="compose", base=BASE, donors=[WHOLE]
    )
    full = shutil.disk_usage(copied)._replace(free=1000)
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda path: full)
    (outcome,) = ckptdiff.execute(planned).outcomes
    assert outcome.status == "failed" and "1,000 are free" in (outcome.reason or "")
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_a_target_that_cannot_be_written(copied: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    options = ["--donor", WHOLE, "--yes", "--out", closed]
    done = reexport(copied / NAME.format(10), *options, obedient=True)
    assert done.code == 2
    told = " ".join(done.text.split())
    assert "permission denied" in told and "by --out" in told
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("side", ["base", "donor"])
def test_a_source_that_changes_is_noticed(copied: Path, tmp_path: Path, side: str) -> None:
    base = Path(shutil.copytree(BASE, tmp_path / "base"))
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    planned = ckptdiff.plan_reexport(
        [copied / NAME.format(10)], engine="compose", base=base, donors=[donor]
    )
    weights = {"base": base, "donor": donor}[side] / "model.safetensors"

    def change(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "write":
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(data)

    (outcome,) = ckptdiff.execute(planned, sink=change).outcomes
    assert outcome.status == "failed"
    assert "changed while it was read" in (outcome.reason or "")
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_what_is_read_back_has_to_be_what_was_written(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = composing.sync_tree

    def failing_disk(folder: Path) -> None:
        real(folder)
        data = bytearray((folder / "model.safetensors").read_bytes())
        data[9_000] ^= 1
        (folder / "model.safetensors").write_bytes(data)

    monkeypatch.setattr(composing, "sync_tree", failing_disk)
    planned = ckptdiff.plan_reexport(
        [copied / NAME.format(10)], engine="compose", base=BASE, donors=[WHOLE]
    )
    (outcome,) = ckptdiff.execute(planned).outcomes
    assert outcome.status == "failed", outcome
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_cancelling_leaves_nothing(copied: Path) -> None:
    cancel = CancelToken()

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "write":
            cancel.cancel()

    planned = ckptdiff.plan_reexport(
        [copied / NAME.format(10)], engine="compose", base=BASE, donors=[WHOLE]
    )
    with pytest.raises(Cancelled):
        ckptdiff.execute(planned, sink=sink, cancel=cancel)
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_a_run_at_the_same_time_is_kept_away(copied: Path) -> None:
    scheme = copied / NAME.format(10)
    with reserved(scheme):
        done = reexport(scheme, "--donor", WHOLE, "--in-place", "--yes")
    assert done.code == 2 and "another process is writing" in done.text
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_of_two_runs_at_once_one_writes(copied: Path) -> None:
    scheme = copied / NAME.format(10)
    command = [*COMMAND, "reexport", scheme, "--base", BASE, "--donor", WHOLE, "--yes"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [
        subprocess.Popen(command, env=environment(), **pipes)  # type: ignore[call-overload]
        for _ in range(4)
    ]
    outputs = [child.communicate() for child in children]
    assert sorted(child.returncode for child in children) == [0, 2, 2, 2], outputs
    assert names(copied) == {*(NAME.format(p) for p in PERCENTS), f"{scheme.name}_v2"}
    assert ckptdiff.check(f"{scheme}_v2", base=BASE, deep=True).verdict.status == "pass"


def test_an_interrupted_exchange_is_finished_by_the_next_command(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without RENAME_EXCHANGE a kill may leave no directory under the scheme's name."""
    scheme = copied / NAME.format(10)
    with reserved(scheme) as place:
        build_ = place.build()
        folder = build_.__enter__()
        shutil.copytree(SWEEP / scheme.name, folder, dirs_exist_ok=True)
        monkeypatch.setattr(place, "_finish", lambda: "")
        place.replace(folder)
        scheme.rename(scheme.with_name(f"{scheme.name}.broken-1"))
    monkeypatch.undo()
    assert not scheme.exists()
    done = reexport(scheme, "--donor", WHOLE, "--dry-run")
    assert done.code == 0, done.err
    assert files(scheme) == files(SWEEP / scheme.name)
    assert f"{scheme.name}.broken-1" in names(copied)
    assert not [name for name in names(copied) if name.startswith(".")]
