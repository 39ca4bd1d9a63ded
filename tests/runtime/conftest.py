"""The corpus of real exports, in the thinned matrix, copies of it to plant faults in, and what
engines that run ModelOpt repair."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("mutate")

from mutate import Mutant  # noqa: E402

from tests.exports import Cell, base_of, cells, ensure  # noqa: E402

if TYPE_CHECKING:
    from tests.runtime.engine_runs import Bench


@pytest.fixture(scope="session")
def exports(corpus: Path) -> dict[Cell, Path]:
    """The ROOT of every cell of the thinned matrix."""
    return ensure(corpus, cells("ci"))


@pytest.fixture(scope="session")
def healthy_cells() -> dict[Cell, Mutant]:
    """What `pristine` has made: pytest would make it anew for every set of parameters."""
    return {}


@pytest.fixture
def pristine(
    request: pytest.FixtureRequest,
    exports: dict[Cell, Path],
    healthy_cells: dict[Cell, Mutant],
    tmp_path_factory: pytest.TempPathFactory,
) -> Mutant:
    """A healthy cell of the corpus with its base, only to be copied."""
    cell: Cell = request.param
    if cell not in healthy_cells:
        folder = tmp_path_factory.mktemp("pristine")
        base = base_of(exports[cell].parents[1], cell)
        healthy_cells[cell] = Mutant.of(exports[cell], base, folder)
    return healthy_cells[cell]


@pytest.fixture
def mutant(pristine: Mutant, tmp_path: Path) -> Iterator[Mutant]:
    yield pristine.copy(tmp_path / "mutant")
    shutil.rmtree(tmp_path / "mutant")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from tests.runtime.engine_runs import Bench  # late: it imports torch

    return Bench(tmp_path_factory.mktemp("engines"))
