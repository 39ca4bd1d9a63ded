"""Sweeps of one small scheme, which the tests of this folder break.

The right finding or exit 2 is what they ask for, and never a clean verdict, a traceback, a hang, or
a byte that does something to a terminal: `run` fails by itself on the last three.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from forging import write_one


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """ROOT of one healthy scheme, `one`."""
    write_one(tmp_path / "root/one")
    return tmp_path / "root"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """ROOT of one healthy scheme, `one`, in two shards with an index."""
    write_one(tmp_path / "root/one", shards=2)
    return tmp_path / "root"
