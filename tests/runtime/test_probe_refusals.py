"""What probes refuse, and say why: prompts, images, configs and scales that would give numbers
which mean nothing, or none at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from command import environment, run
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaModel

import ckptdiff
from ckptdiff.errors import CapabilityError, UsageError
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime import load_model
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.scoring import Scorer, batch_of
from ckptdiff.runtime.skeleton import read_config

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
BASE = SAMPLES / "base"
TOP100 = SAMPLES / "sweep/fp8_autoquant_all_layers_top100_captions"
INPUT_SCALE = "model.layers.3.self_attn.q_proj.input_scale"
SECONDS = 240  # importing torch and transformers takes a busy machine long


# Prompts


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(BASE, read_config(BASE), None)


def png_with_a_text_bomb(path: Path) -> None:
    """A comment that is small packed and larger than any comment unpacked."""
    Image.new("RGB", (32, 32)).save(path)
    packed = b"zTXt" + b"k\0\0" + zlib.compress(bytes(200_000_000))
    chunk = (len(packed) - 4).to_bytes(4, "big") + packed + zlib.crc32(packed).to_bytes(4, "big")
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + chunk + whole[33:])


def test_an_image_that_is_no_file_is_not_waited_for(encoder: Encoder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UsageError, match=r"pipe\.png of prompt 2 cannot be read: a fifo"):
        encoder.encode([Prompt("a"), Prompt("b", images=(str(tmp_path / "pipe.png"),))])


def test_images_that_break_their_reader_or_the_processor(encoder: Encoder, tmp_path: Path) -> None:
    png_with_a_text_bomb(tmp_path / "bomb.png")
    Image.new("RGB", (2000, 4)).save(tmp_path / "strip.png")
    (tmp_path / "text.png").write_text("no image")
    for name, message in (
        ("bomb.png", "of prompt 1 cannot be read: Decompressed data too large"),
        ("strip.png", "does not take the images of prompt 1: absolute aspect ratio"),
        ("text.png", "of prompt 1 cannot be read: cannot identify"),
        ("a\0b.png", "of prompt 1 cannot be read: not a possible file name"),
        (".", "of prompt 1 cannot be read: a directory"),
    ):
        with pytest.raises(UsageError, match=message):
            encoder.encode([Prompt("What is this?", images=(str(tmp_path / name),))])


def test_an_image_that_is_named_and_not_given_is_not_a_word(
    encoder: Encoder, tmp_path: Path
) -> None:
    """The model would run, on the embedding of the token that stands for an image."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    place = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    for prompt in (
        Prompt("see <|image_pad|> here"),
        Prompt("see <|video_pad|> here"),
        Prompt(messages=(place,)),
        Prompt("<|video_pad|>", images=(str(tmp_path / "a.png"),)),
    ):
        with pytest.raises(UsageError, match="prompt 1 names an image or a video"):
            encoder.encode([prompt])
    for prompt in (
        Prompt(messages=(place, place), images=(str(tmp_path / "a.png"),)),
        Prompt("see <|image_pad|>", images=(str(tmp_path / "a.png"),)),
    ):
        with pytest.raises(UsageError, match="does not take the images of prompt 1"):
            encoder.encode([prompt])


def test_a_perplexity_that_no_prompt_has_is_said_to_be_none() -> None:
    report = ckptdiff.probe(BASE, [TOP100], limit=4, max_length=1, perplexity=True, device="cpu")
    assert report.perplexity is None
    assert report.notes == ("no prompt has a second token: there is no perplexity",)


# Configs


def changed(tmp_path: Path, file: str, **values: object) -> Path:
    """A copy of base with some values of a config changed, of its language part as well."""
    path = tmp_path / "base"
    shutil.copytree(BASE, path)
    document: dict[str, Any] = json.loads((path / file).read_text())
    document |= {name: value for name, value in values.items() if name in document}
    document.get("text_config", {}).update(values)
    (path / file).write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": "many"}, "hidden_size"),
        ({"num_attention_heads": 0}, "zero"),
        ({"num_hidden_layers": -3}, "num_hidden_layers"),
        ({"hidden_act": "nosuch"}, "nosuch"),
        ({"architectures": ["BertModel"]}, "vocab_size"),
        ({"architectures": ["PreTrainedModel"]}, "has no parameters"),
    ],
)
def test_a_config_that_describes_no_model(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=f"cannot be built: .*{message}"):
        load_model(changed(tmp_path, "config.json", **values), device="cpu")


def test_a_model_that_there_is_no_memory_to_build(tmp_path: Path) -> None:
    path = changed(tmp_path, "config.json", vocab_size=10**14)
    with pytest.raises(CapabilityError, match="too little memory to build"):
        load_model(path, device="cpu")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_generation_config_that_is_none(tmp_path: Path, content: str) -> None:
    path = changed(tmp_path, "generation_config.json")
    (path / "generation_config.json").write_text(content)
    with pytest.raises(UsageError, match=r"generation_config\.json cannot be understood"):
        load_model(path, device="cpu")


def test_dtypes_that_no_model_computes_in() -> None:
    with pytest.raises(UsageError, match=r"dtype is torch\.int8"):
        load_model(BASE, dtype=torch.int8, device="cpu")
    assert load_model(BASE, dtype=torch.float64, device="cpu").dtype == torch.float64
    # What others call "auto" is what is done when nothing is said.
    with pytest.raises(UsageError, match="dtype is 'auto'") as caught:
        load_model(BASE, dtype="auto", device="cpu")
    assert caught.value.next_step == (
        "Known are float32, bfloat16, float16; leave it out for the dtype of config.json."
    )
    assert load_model(BASE, device="cpu").dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [LlamaModel, LlamaForSequenceClassification])
def test_a_model_that_foretells_no_tokens(kind: type[LlamaModel], encoder: Encoder) -> None:
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    batch = batch_of(encoder.encode([Prompt("a few words")]), [0], 0)
    with pytest.raises(UsageError, match=f"a {kind.__name__} gives no logits of next tokens"):
        Scorer(kind(config).eval(), losses=False).run(batch)


def test_building_touches_no_memory_in_deterministic_mode(tmp_path: Path) -> None:
    """Torch would fill 768 MB after 768 MB with NaN, before anybody has asked what fits."""
    path = changed(tmp_path, "config.json", intermediate_size=2_000_000)
    program = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from ckptdiff.runtime.skeleton import skeleton\n"
        "torch.use_deterministic_algorithms(True, warn_only=True)\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = used(); skeleton(Path(sys.argv[1]), torch.float32)\n"
        "assert torch.utils.deterministic.fill_uninitialized_memory\n"
        "assert used() - before < 300, used() - before\n"
    )
    subprocess.run([sys.executable, "-c", program, path], env=environment(), check=True)


# Scales of inputs


@pytest.fixture
def scheme(tmp_path: Path) -> Path:
    path = tmp_path / "scheme"
    shutil.copytree(TOP100, path)
    return path


def with_input_scale(path: Path, value: float | None) -> Path:
    state = load_file(path / "model.safetensors")
    if value is None:
        del state[INPUT_SCALE]
    else:
        state[INPUT_SCALE] = torch.tensor(value)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_input_scale_that_nothing_can_be_rounded_by(scheme: Path, value: float) -> None:
    with pytest.raises(UsageError, match=f"{INPUT_SCALE} is {value:g}, and inputs cannot"):
        load_model(with_input_scale(scheme, value), activations="static", device="cpu")
    load_model(scheme, device="cpu")  # which does not use it


def test_an_input_scale_that_is_missing_is_not_left_out_silently(scheme: Path) -> None:
    with pytest.raises(UsageError, match="comes without the input_scale that rounds its inputs"):
        load_model(with_input_scale(scheme, None), activations="static", device="cpu")


def test_what_could_not_be_computed_is_in_the_verdict(scheme: Path) -> None:
    bad = with_input_scale(scheme, -1.0)
    report = ckptdiff.probe(BASE, [bad, TOP100], limit=4, activations="static", device="cpu")
    assert report.verdict.endswith(f"{bad} could not be computed")
    assert [item.path for item in report.unread] == [str(bad)]


# Files of results


def test_results_are_shown_even_where_a_file_of_them_cannot_be_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "full.md").symlink_to("/dev/full")
    outputs = ("-o", tmp_path / "full.md", "-o", tmp_path / "kept.txt")
    few = ("--limit", "2", "--device", "cpu")
    done = run("probe", BASE, TOP100, *few, *outputs, seconds=SECONDS)
    assert done.code == 2 and "No space left" in done.err
    assert done.text.startswith("KL of ") and (tmp_path / "kept.txt").read_text() == done.text


def test_a_directory_as_a_file_of_results_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    done = run("probe", BASE, TOP100, "-o", tmp_path / "x.json")
    assert done.code == 2 and "x.json is a directory" in done.err
