"""Prompts of a probe: text, images, and such that cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from probes import BASE, scheme

import ckptdiff
from ckptdiff.errors import UsageError
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime import load_model
from ckptdiff.runtime.metrics import compare
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.skeleton import read_config


def test_images_go_through_the_processor_or_its_parts(tmp_path: Path) -> None:
    lines = []
    for number, color in enumerate([(250, 10, 10), (10, 10, 250), (0, 0, 0)]):
        Image.new("RGB", (48 + 16 * number, 64), color).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"text": "What is this?", "image": f"{number}.png"}))
    lines.append(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}))
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    report = ckptdiff.probe(BASE, [scheme(100)], prompts=tmp_path / "p.jsonl", device="cpu")
    assert report.prompts.images == 3 and report.prompts.source == str(tmp_path / "p.jsonl")
    images = report.results[0].per_prompt.kl[:3]
    assert all(0 < kl < 0.1 for kl in images) and len(set(images)) == 3
    # The model's own numbers, with positions that know of the image.
    encoder = Encoder(BASE, read_config(BASE), None)
    prompt = Prompt("What is this?", images=(str(tmp_path / "1.png"),))
    (encoded,) = encoder.encode([prompt])
    grid = encoded.media["image_grid_thw"][0]
    assert int((encoded.sequences["input_ids"] == 510).sum()) == int(grid.prod()) // 4
    inputs = {name: tensor[None] for name, tensor in encoded.sequences.items()}
    models = [load_model(p, dtype="float32", device="cpu") for p in (BASE, scheme(100))]
    with torch.inference_mode():
        a, b = (m(**inputs, **encoded.media).logits[0, -1:] for m in models)
    assert images[1] == pytest.approx(compare(a, b).kl[0], rel=1e-2)


def test_as_many_tokens_as_the_model_takes() -> None:
    """A prompt of a thousand words, cut to the last position that there is."""
    report = ckptdiff.probe(
        BASE, [scheme(10)], prompts=[Prompt("b " * 1100)], max_length=1024, device="cpu"
    )
    assert report.prompts.tokens == 1024


def test_a_directory_without_a_tokenizer_is_told_as_such(tmp_path: Path) -> None:
    """transformers makes one that knows no word, and says nothing."""
    shutil.copyfile(BASE / "config.json", tmp_path / "config.json")
    encoder = Encoder(tmp_path, read_config(tmp_path), None)
    with pytest.raises(UsageError, match="gives no token for prompt 1") as caught:
        encoder.encode([Prompt("some text")])
    assert "tokenizer files" in caught.value.next_step


def test_prompts_are_cut_and_counted() -> None:
    report = ckptdiff.probe(BASE, [scheme(10)], limit=10, max_length=3, device="cpu")
    assert (report.prompts.count, report.prompts.loaded, report.prompts.tokens) == (10, 64, 30)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([Prompt("")], "prompt 1 has no tokens"),
        ([Prompt("a"), Prompt(images=("/no/such.png",))], "the image /no/such.png of prompt 2"),
        (
            [Prompt("a"), Prompt("b " * 1100)],
            r"prompt 2 has [\d,]+ tokens, and the model takes 1,024",
        ),
        ([Prompt("half of a pair: \ud800")], "the tokenizer of .* does not take prompt 1"),
        ([], "there is no prompt"),
    ],
)
def test_prompts_that_cannot_be_used(prompts: list[Prompt], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ckptdiff.probe(BASE, [scheme(10)], prompts=prompts, device="cpu")
