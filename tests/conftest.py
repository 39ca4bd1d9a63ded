"""Makes `build` and `command` importable from every test, and the sweeps that most need."""

from __future__ import annotations

from pathlib import Path

import build
import pytest


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """ROOT of a healthy sweep of four schemes, with its base beside it."""
    return build.write_sweep(tmp_path)


@pytest.fixture
def bug(sweep: Path) -> Path:
    """ROOT of the founding bug: top10, top30 and top50 carry the weights of top100."""
    build.copy_weights(sweep, 100, (10, 30, 50))
    return sweep
