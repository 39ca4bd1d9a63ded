"""Snapshots: equal while nothing changes, and different wherever something does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import build
import pytest

from ckptdiff import api
from ckptdiff.errors import RootError

SPEC = build.SweepSpec()


def rewritten(path: Path) -> None:
    """Other bytes under the same name, size and time."""
    status = path.stat()
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "touched": lambda path: os.utime(path / "model.safetensors", ns=(1, 1)),
    "replaced": lambda path: rewritten(path / "model.safetensors"),
    "grown": lambda path: (path / "config.json").write_text("{}  "),
    "added": lambda path: (path / "extra.safetensors").write_bytes(b"x"),
    "removed": lambda path: (path / "config.json").unlink(),
    "manifest": lambda path: next((path / "layer-sensitivity").iterdir()).unlink(),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_shows_in_its_scheme_alone(change: str, sweep: Path) -> None:
    before = api.snapshot(sweep)
    assert set(before) == {SPEC.scheme(percent) for percent in SPEC.percents}
    assert api.snapshot(sweep) == before
    CHANGES[change](sweep / SPEC.scheme(30))
    after = api.snapshot(sweep)
    assert {id for id in before if before[id] != after.get(id)} == {SPEC.scheme(30)}


def test_schemes_come_and_go(sweep: Path) -> None:
    before = api.snapshot(sweep)
    shutil.copytree(sweep / SPEC.scheme(10), sweep / "again")
    assert set(api.snapshot(sweep)) - set(before) == {"again"}
    shutil.rmtree(sweep / "again")
    assert api.snapshot(sweep) == before
    shutil.rmtree(sweep)
    with pytest.raises(RootError, match="not there"):
        api.snapshot(sweep)


def test_nothing_is_opened(sweep: Path) -> None:
    fifo = sweep / SPEC.scheme(10) / "pipe.safetensors"
    os.mkfifo(fifo)
    assert SPEC.scheme(10) in api.snapshot(sweep)
