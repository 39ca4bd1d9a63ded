"""The sample sweep as tests of probes use it, and schemes that were altered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
BASE, SWEEP, COPIED = SAMPLES / "base", SAMPLES / "sweep", SAMPLES / "copied"
NAME = "fp8_autoquant_all_layers_top{}_captions"
PERCENTS = (10, 30, 50, 100)


def scheme(percent: int) -> Path:
    """The directory of the sample scheme that covers so much."""
    return SWEEP / NAME.format(percent)


def altered(tmp_path: Path, factors: dict[str, float], name: str = "altered") -> Path:
    """A copy of top100 with some tensors multiplied."""
    path = tmp_path / name
    shutil.copytree(scheme(100), path)
    state = load_file(path / "model.safetensors")
    for tensor, factor in factors.items():
        state[tensor] = (state[tensor].float() * factor).to(state[tensor].dtype)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


OWN = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({marker!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""


def own_models(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two models of one architecture that transformers does not have, and whose code lies beside
    them: a small Llama. The third path is a file which that code makes when it is run."""
    marker = tmp_path / "ran"
    paths = tmp_path / "reference", tmp_path / "other"
    for number, path in enumerate(paths):
        torch.manual_seed(number)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
            )
        )  # fmt: skip
        model.save_pretrained(path)
        for file in BASE.glob("tokenizer*"):
            shutil.copyfile(file, path / file.name)
        config = json.loads((path / "config.json").read_text()) | {
            "model_type": "own",
            "architectures": ["Own"],
            "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
        }
        (path / "config.json").write_text(json.dumps(config))
        (path / "own.py").write_text(OWN.format(marker=str(marker)))
    return *paths, marker
