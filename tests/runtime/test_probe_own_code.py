"""Probes of models that bring their own code: refused unasked, run when that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from probes import BASE, own_models
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import ckptdiff
from ckptdiff.errors import UsageError
from ckptdiff.formats.prompts import default_prompts
from ckptdiff.runtime.metrics import compare
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.skeleton import read_config, skeleton


@pytest.fixture(autouse=True)
def copies_of_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers runs a copy of the code; in this process, too, it is not left behind."""
    copies = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", copies)


def plain(path: Path) -> LlamaForCausalLM:
    """The same model without its code."""
    config = json.loads((path / "config.json").read_text())
    model = LlamaForCausalLM(LlamaConfig(**{**config, "model_type": "llama"}))
    model.load_state_dict(load_file(path / "model.safetensors"))
    return model.eval()


def test_it_is_not_run_unasked(tmp_path: Path) -> None:
    reference, other, ran = own_models(tmp_path)
    with pytest.raises(UsageError, match="code of its own, which is not run unasked") as caught:
        ckptdiff.probe(reference, [other], limit=2, device="cpu")
    assert "--trust-remote-code to probe" in caught.value.next_step
    assert not ran.exists()


def test_it_is_run_when_that_is_asked_for(tmp_path: Path) -> None:
    reference, other, ran = own_models(tmp_path)
    report = ckptdiff.probe(reference, [other], limit=3, device="cpu,cpu", trust_remote_code=True)
    assert ran.exists() and not report.unread
    models, tokenizer = (plain(reference), plain(other)), AutoTokenizer.from_pretrained(BASE)
    for prompt, kl in zip(default_prompts(), report.results[0].per_prompt.kl, strict=False):
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
        with torch.inference_mode():
            a, b = (model(input_ids=ids).logits[0, -1:] for model in models)
        assert kl == pytest.approx(compare(a, b).kl[0], rel=1e-3)


def test_a_class_that_only_its_own_code_has(tmp_path: Path) -> None:
    """The config is one of transformers', the model is not."""
    path, _, ran = own_models(tmp_path)
    config = json.loads((path / "config.json").read_text())
    del config["auto_map"]["AutoConfig"]
    (path / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(UsageError, match=r"the model in .* has code of its own"):
        skeleton(path)
    assert not ran.exists()


def test_a_tokenizer_of_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask somebody on the standard input, where the child's parent speaks."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    path, _, _ = own_models(tmp_path)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "mine.Mine"]}, "tokenizer_class": "Mine"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "mine.py").write_text(
        f"open({str(tmp_path / 'tokenized')!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class Mine(PreTrainedTokenizerFast):\n    pass\n"
    )
    with pytest.raises(UsageError, match=r"the tokenizer in .* has code of its own") as caught:
        Encoder(path, read_config(BASE), None)
    assert "--trust-remote-code" in caught.value.next_step
    assert not asked and not (tmp_path / "tokenized").exists()
    trusting = Encoder(path, read_config(BASE), None, trust_remote_code=True)
    assert type(trusting.tokenizer).__name__ == "Mine" and (tmp_path / "tokenized").exists()
    (mine,), (wanted,) = (e.encode(default_prompts()[:1]) for e in
                          (trusting, Encoder(BASE, read_config(BASE), None)))  # fmt: skip
    assert torch.equal(mine.sequences["input_ids"], wanted.sequences["input_ids"])
