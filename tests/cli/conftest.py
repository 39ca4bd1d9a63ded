"""What the tests of `reexport` and of `diff` start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from build import fp8_tensors, write_weights

from tests.cli.diffing import SPEC
from tests.cli.samples import SAMPLES


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The founding bug: one set of weights under four names."""
    return Path(shutil.copytree(SAMPLES / "copied", tmp_path / "quantized"))


@pytest.fixture
def base(sweep: Path) -> Path:
    return sweep.parent / "base"


@pytest.fixture
def scheme(sweep: Path) -> Path:
    """One scheme of a healthy sweep."""
    return sweep / SPEC.scheme(50)


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """The same tensors as `scheme`, in three files."""
    path = tmp_path / "twin"
    path.mkdir()
    write_weights(path, fp8_tensors(SPEC.selected(50)), shards=3)
    return path
