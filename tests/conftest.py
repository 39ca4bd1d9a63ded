"""Makes `build` and `command` importable from every test, and the sweeps that most need."""

from __future__ import annotations

import compileall
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import build
import pytest

import ckptdiff

# The tests have a process a core, and their tensors are tiny: more threads of OpenMP, which wait
# by spinning, took twice the CPU time of all that runs a model. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background, or by nohup, this process ignores signals, and so would every
# process under test: Ctrl-C and a closed terminal would be tried on what cannot hear them.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)


def pytest_sessionstart() -> None:
    """Hundreds of processes under test would compile the same sources: they write no bytecode."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compileall.compile_dir(str(Path(ckptdiff.__file__).parent), quiet=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without a look for garbage among what stays: half of the time would go into that, for test
    modules import torch, transformers and ModelOpt."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test: nobody's digests leak in, none are left behind."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of real exports, which `tests.exports.ensure` fills once a session.

    That takes minutes; set CKPTDIFF_TEST_EXPORTS to a directory to keep it between sessions.
    """
    kept = os.environ.get("CKPTDIFF_TEST_EXPORTS")
    if kept:
        return Path(kept)
    # pytest-xdist gives each of its processes a folder in a common one.
    common = tmp_path_factory.getbasetemp()
    return (common.parent if "PYTEST_XDIST_WORKER" in os.environ else common) / "exports"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """ROOT of a healthy sweep of four schemes, with its base beside it."""
    return build.write_sweep(tmp_path)


@pytest.fixture
def bug(sweep: Path) -> Path:
    """ROOT of the founding bug: top10, top30 and top50 carry the weights of top100."""
    build.copy_weights(sweep, 100, (10, 30, 50))
    return sweep
