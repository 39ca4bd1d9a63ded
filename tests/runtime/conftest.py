"""The corpus of real exports, which is built once a session.

That takes minutes; set CKPTDIFF_TEST_EXPORTS to a directory to keep it between sessions.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("mutate")

from tests.exports import Cell, cells, ensure  # noqa: E402


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Path]:
    """The ROOT of every cell of the thinned matrix."""
    kept = os.environ.get("CKPTDIFF_TEST_EXPORTS")
    return ensure(Path(kept) if kept else tmp_path_factory.mktemp("exports"), cells("ci"))
