"""Writing into mapped files, as is done on many processors: the same bytes, the same ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from repairing import BASELINE, NAME, SAMPLES, SWEEP, broken_sweep, files

from ckptdiff import api
from ckptdiff.jobs import copying
from ckptdiff.records.plan import Outcome


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each target was mapped, on a machine of many processors."""
    found: list[bool] = []
    mapped = copying._mapped

    def sees(fd: int, nbytes: int) -> Any:
        array = mapped(fd, nbytes)
        found.append(array is not None)
        return array

    monkeypatch.setattr(copying, "_MAPPING_THREADS", 2)
    monkeypatch.setattr(copying, "_mapped", sees)
    return found


def compose(root: Path) -> Outcome:
    """Rewrite top10 of the founding bug from the whole checkpoint."""
    planned = api.plan_reexport(
        [root / NAME.format(10)],
        engine="compose",
        base=root.parent / "base",
        donors=[BASELINE, SWEEP / NAME.format(100)],
        out=root.parent / "out",
    )
    (outcome,) = api.execute(planned, jobs=2, cache=False).outcomes
    return outcome


def weights(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(path).items() if name.endswith(".safetensors")}


def refuse(code: int) -> Any:
    def refused(*args: object) -> Any:
        raise OSError(code, os.strerror(code))

    return refused


def test_a_mapped_file_has_the_same_bytes(tmp_path: Path, opened: list[bool]) -> None:
    outcome = compose(broken_sweep(tmp_path))
    assert outcome.status == "written" and opened and all(opened)
    assert weights(Path(outcome.target)) == weights(SWEEP / NAME.format(10))


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("step", ["posix_fallocate", "mmap"])
def test_where_nothing_is_mapped_it_is_written(
    tmp_path: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    monkeypatch.setattr(
        copying.os if step == "posix_fallocate" else copying.mmap, step, refuse(code)
    )
    outcome = compose(broken_sweep(tmp_path))
    assert outcome.status == "written" and opened and not any(opened)
    assert weights(Path(outcome.target)) == weights(SWEEP / NAME.format(10))


def test_a_full_disk_is_seen_before_anything_is_copied(
    tmp_path: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = broken_sweep(tmp_path)
    monkeypatch.setattr(copying.os, "posix_fallocate", refuse(errno.ENOSPC))
    monkeypatch.setattr(copying, "_copy", None)
    outcome = compose(root)
    assert outcome.status == "failed" and "no space left" in (outcome.reason or "")
    assert not list((tmp_path / "out").iterdir())
    assert files(root) == files(SAMPLES / "copied")
