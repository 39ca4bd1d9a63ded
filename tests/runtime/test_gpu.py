"""GPUs: errors that say so when others have filled one, and what two do together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ckptdiff.runtime.export.loading import load
from ckptdiff.runtime.export.progress import Progress
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


@contextmanager
def taken(left: int) -> Iterator[None]:
    """Another process holds all of the first GPU but `left` bytes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == b"full\n"
        yield
        other.stdin.close()


@pytest.fixture
def full_gpu() -> Iterator[None]:
    with taken(LEFT):
        yield


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


two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
# 1.2 billion weights in BF16 are 2.4 GB: more than is left of the first GPU, with room.
SHAPE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 18,
    "num_attention_heads": 16, "num_key_value_heads": 16,
}  # fmt: skip
ROOM = 3 << 30


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A random Llama with the tokenizer of the samples."""
    model = LlamaForCausalLM._from_config(
        LlamaConfig(vocab_size=512, **SHAPE), dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BASE / name, tmp_path / "base" / name)
    return tmp_path / "base"


@two_gpus
def test_a_model_too_large_for_one_gpu_lies_on_two(large: Path) -> None:
    with taken(ROOM):
        model = load(large, "BF16", False, Progress(lambda event: None))
    assert {str(each.device) for each in model.parameters()} == {"cuda:0", "cuda:1"}


@two_gpus
def test_a_sweep_of_a_model_on_two_gpus(large: Path) -> None:
    """Ranked, quantized and composed over two GPUs; every byte proven from the base."""
    swept = large.parent / "swept"
    arguments = ("sweep", "--baseline-from", large, "--top", "50,100", "--out", swept)
    with taken(ROOM):
        done = run(*arguments, "--calib-samples", "8", "--calib-length", "64", "--yes", seconds=400)
    assert done.code == 0, done.err
    found = run("check", swept, "--base", large, "--deep", "--json", seconds=200)
    assert found.code == 0 and found.codes == set(), found.text


@two_gpus
def test_a_probe_spreads_its_schemes_over_two_gpus() -> None:
    arguments = ("probe", "--sweep", SCHEME.parent, "--base", BASE, "--json", "--device")
    one, two = (run(*arguments, device, seconds=200).report for device in ("cuda:1", "cuda"))
    assert [report["device"].count("cuda:") for report in (one, two)] == [1, 2]
    kl = [[r["per_prompt"]["kl"] for r in report["results"]] for report in (one, two)]
    assert len(kl[0]) == 5 and kl[0] == kl[1]
