"""What the tests of `reexport` start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.samples import SAMPLES


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The founding bug: one set of weights under four names."""
    return Path(shutil.copytree(SAMPLES / "copied", tmp_path / "quantized"))
