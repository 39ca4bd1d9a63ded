"""What is done on many processors, writing into mapped files and proving by processes: the same
bytes, the same ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from repairing import BASELINE, NAME, SAMPLES, SWEEP, broken_sweep, files

from ckptdiff import api
from ckptdiff.events import Sink, silent
from ckptdiff.jobs import composing, copying, proving, target
from ckptdiff.records.plan import Outcome


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each target was mapped, on a machine of many processors."""
    found: list[bool] = []
    mapped = target._mapped

    def sees(fd: int, nbytes: int) -> Any:
        made = mapped(fd, nbytes)
        found.append(made is not None)
        return made

    monkeypatch.setattr(copying, "_MAPPING_THREADS", 2)
    monkeypatch.setattr(target, "_mapped", sees)
    return found


@pytest.fixture(params=["disk", "memory"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the target is taken for; asking for pages ahead is right on either."""
    monkeypatch.setattr(target, "_in_memory", lambda fd: request.param == "memory")
    return str(request.param)


def compose(root: Path, sink: Sink = silent) -> Outcome:
    """Rewrite top10 of the founding bug from the whole checkpoint."""
    planned = api.plan_reexport(
        [root / NAME.format(10)],
        engine="compose",
        base=root.parent / "base",
        donors=[BASELINE, SWEEP / NAME.format(100)],
        out=root.parent / "out",
    )
    (outcome,) = api.execute(planned, jobs=2, cache=False, sink=sink).outcomes
    return outcome


def weights(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(path).items() if name.endswith(".safetensors")}


def refuse(code: int) -> Any:
    def refused(*args: object) -> Any:
        raise OSError(code, os.strerror(code))

    return refused


@pytest.mark.usefixtures("kind")
def test_a_mapped_file_has_the_same_bytes(tmp_path: Path, opened: list[bool]) -> None:
    outcome = compose(broken_sweep(tmp_path))
    assert outcome.status == "written" and opened and all(opened)
    assert weights(Path(outcome.target)) == weights(SWEEP / NAME.format(10))


def test_processes_that_were_begun_early_prove_the_donor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    def sees(*arguments: Any) -> Any:
        assert "hash" not in stages, "it is before digests are taken that time is won"
        begun.append(proving.begun(*arguments))
        return begun[-1]

    stages: list[str] = []
    monkeypatch.setattr(proving, "_FOR_PROCESSES", 0)
    monkeypatch.setattr(proving, "MOST_THREADS", 1)
    monkeypatch.setattr(composing, "begun", sees)
    outcome = compose(broken_sweep(tmp_path), sink=lambda event: stages.append(event.stage))
    assert outcome.status == "written" and weights(Path(outcome.target)) == weights(
        SWEEP / NAME.format(10)
    )
    assert any(begun)
    assert all(workers is None or workers._process.returncode is not None for workers in begun)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("step", ["posix_fallocate", "mmap"])
def test_where_nothing_is_mapped_it_is_written(
    tmp_path: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    monkeypatch.setattr(target, "_populate", refuse(errno.EINVAL))
    monkeypatch.setattr(target.os if step == "posix_fallocate" else target.mmap, step, refuse(code))
    outcome = compose(broken_sweep(tmp_path))
    assert outcome.status == "written" and opened and not any(opened)
    assert weights(Path(outcome.target)) == weights(SWEEP / NAME.format(10))


@pytest.mark.usefixtures("kind")
def test_a_full_disk_is_seen_before_anything_is_copied(
    tmp_path: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = broken_sweep(tmp_path)
    monkeypatch.setattr(target.os, "posix_fallocate", refuse(errno.ENOSPC))
    monkeypatch.setattr(target, "_populate", refuse(errno.ENOSPC))
    monkeypatch.setattr(copying, "_copy", None)
    outcome = compose(root)
    assert outcome.status == "failed" and "no space left" in (outcome.reason or "")
    assert not list((tmp_path / "out").iterdir())
    assert files(root) == files(SAMPLES / "copied")


def test_memory_that_ends_while_it_is_written_is_a_full_disk(
    tmp_path: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = broken_sweep(tmp_path)
    populate = target._populate

    def ends(part: Any) -> None:
        populate(part)
        monkeypatch.setattr(target, "_populate", refuse(errno.ENOSPC))

    monkeypatch.setattr(target, "_in_memory", lambda fd: True)
    monkeypatch.setattr(target, "_populate", ends)
    outcome = compose(root)
    assert opened == [True]
    assert outcome.status == "failed" and "no space left" in (outcome.reason or "")
    assert not list((tmp_path / "out").iterdir())


def test_a_page_that_cannot_be_had_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    with target.created(tmp_path / "file", 1 << 20, mapping=True) as made:
        part = made.room(5000, 10_000)
        target._populate(part)
        part[:] = 1
        os.ftruncate(made.fd, 0)  # from now on a write to the mapping would end the process
        with pytest.raises(OSError, match="No space left") as caught:
            target._populate(part)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(("kind", "expected"), [("tmpfs", True), ("ext4", False)])
def test_a_tmpfs_is_known_by_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "22 1 253:99 / / rw - tmpfs none rw\n"
        f"23 1 {os.major(device)}:{os.minor(device)} / {tmp_path} rw shared:1 - {kind} none rw\n"
    )
    monkeypatch.setattr(target, "_MOUNTS", mounts)
    with mounts.open("rb") as file:
        assert target._in_memory(file.fileno()) is expected
