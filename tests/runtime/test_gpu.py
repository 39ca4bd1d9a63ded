"""A GPU that others have filled: errors that say so, and nothing half-made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.command import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SAMPLES = Path(__file__).parents[2] / "samples"
BASE, SCHEME = SAMPLES / "base", SAMPLES / "sweep" / "fp8_autoquant_all_layers_top10_captions"
# A context alone takes more than that.
LEFT = 100 << 20
HOLD = """
import sys, torch
size = torch.cuda.mem_get_info()[0] - int(sys.argv[1])
kept = torch.empty(size, dtype=torch.uint8, device="cuda")
print("full", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def full_gpu() -> Iterator[None]:
    """Another process has taken what was free on the first GPU."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(LEFT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == b"full\n"
        yield
        other.stdin.close()


@pytest.mark.usefixtures("full_gpu")
def test_a_reexport_finds_no_room(tmp_path: Path) -> None:
    arguments = ("reexport", SCHEME, "--engine", "modelopt", "--base", BASE, "--out", tmp_path)
    done = run(*map(str, arguments), "--yes", seconds=180)
    assert done.code == 4
    said = " ".join(done.text.split())
    assert "the GPU has too little memory for this model" in said
    assert 'CUDA_VISIBLE_DEVICES=""' in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full_gpu")
def test_a_probe_finds_no_room() -> None:
    done = run("probe", str(BASE), str(SCHEME), "--device", "cuda", "--limit", "2", seconds=180)
    assert done.code == 3
    assert "free on cuda" in done.err and "--device" in done.err
