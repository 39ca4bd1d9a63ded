"""Shards that change under the reader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from forging import SINGLE, fifo

import ckptdiff
from ckptdiff.events import Event, Started
from ckptdiff.records.report import CheckReport

TOP10 = build.SweepSpec().scheme(10)


def check_while(root: Path, change: Callable[[], object]) -> CheckReport:
    """Check `root`; `change` runs when the headers are read and the hashing begins."""
    happened = []

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "hash":
            change()
            happened.append(event)

    report = ckptdiff.check(root, sink=sink)
    assert len(happened) == 1
    return report


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


CHANGES: dict[str, Callable[[Path], object]] = {
    "changes": flip,
    "grows": lambda file: os.truncate(file, file.stat().st_size + 8),
    "shrinks": lambda file: os.truncate(file, file.stat().st_size - 8),
    "becomes-empty": lambda file: os.truncate(file, 0),
    "vanishes": lambda file: file.unlink(),
    "becomes-a-fifo": fifo,
    "becomes-another-file": lambda file: (
        shutil.copy(file, f"{file}.new") and Path(f"{file}.new").rename(file)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_shard_that_changes_while_it_is_read(sweep: Path, change: str) -> None:
    report = check_while(sweep, lambda: CHANGES[change](sweep / TOP10 / SINGLE))
    assert ckptdiff.exit_code(report) == 2
    assert [item.path for item in report.unread] == [f"{TOP10}/{SINGLE}"]
    assert not report.verdict.complete
    assert {row.id: row.status for row in report.schemes}[TOP10] == "unread"
    assert TOP10 not in report.verdict.safe
    assert len(report.verdict.safe) == 3
    assert {finding.severity for finding in report.findings} <= {"info"}
