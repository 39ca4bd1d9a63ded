"""The corpus of real exports, in the thinned matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("mutate")

from tests.exports import Cell, cells, ensure  # noqa: E402


@pytest.fixture(scope="session")
def exports(corpus: Path) -> dict[Cell, Path]:
    """The ROOT of every cell of the thinned matrix."""
    return ensure(corpus, cells("ci"))
