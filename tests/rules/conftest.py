"""The committed sweep, real FP8 exports of a tiny Qwen2.5-VL, to plant a fault in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("mutate")

from mutate import Mutant  # noqa: E402

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Mutant:
    return Mutant.of(SAMPLES / "sweep", SAMPLES / "base", tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def mutant(pristine: Mutant, tmp_path: Path) -> Iterator[Mutant]:
    """A copy of the sweep and its base, healthy until the test changes it."""
    yield pristine.copy(tmp_path / "mutant")
    shutil.rmtree(tmp_path / "mutant")  # megabytes for every test, which nobody looks at
