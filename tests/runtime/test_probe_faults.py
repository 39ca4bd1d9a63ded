"""What a probe makes of schemes that are damaged, change, or lack something."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from probes import BASE, altered, scheme
from safetensors.torch import load_file, save_file

import ckptdiff
from ckptdiff.analysis.ordering import natural
from ckptdiff.errors import UsageError
from ckptdiff.events import Event, Started


def test_nan_is_located_and_the_others_go_on(tmp_path: Path) -> None:
    bad = altered(tmp_path, {"model.layers.3.input_layernorm.weight": float("nan")})
    report = ckptdiff.probe(BASE, [bad, scheme(100)], limit=8, device="cpu")
    assert [result.scheme for result in report.results] == [str(scheme(100))]
    (unread,) = report.unread
    assert unread.path == str(bad)
    assert "the first module that makes them is model.language_model.layers.3.input_layernorm" in (
        unread.reason
    )


def test_a_scheme_that_changes_meanwhile_has_no_numbers(tmp_path: Path) -> None:
    """Weights of top100 under the name of top30, from the moment on that the child runs; a copy
    of what changes is not told to be the same."""
    shutil.copytree(scheme(30), tmp_path / "a_top30")
    shutil.copytree(scheme(30), tmp_path / "b_top30")

    def swap(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "noise":
            shutil.copyfile(scheme(100) / "model.safetensors", tmp_path / "new")
            (tmp_path / "new").replace(tmp_path / "a_top30/model.safetensors")

    others = [tmp_path / "a_top30", tmp_path / "b_top30", scheme(10)]
    report = ckptdiff.probe(BASE, others, limit=4, device="cpu", cache=False, sink=swap)
    assert {u.path: u.reason for u in report.unread} == {
        str(tmp_path / "a_top30"): "it changed while it was probed"
    }
    # By their paths: where the samples lie decides which is the first.
    kept = sorted(map(str, others[1:]), key=natural)
    assert [result.scheme for result in report.results] == kept


def test_a_reference_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")

    def touch(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "noise":
            os.utime(tmp_path / "base/model.safetensors")

    with pytest.raises(UsageError, match="changed while it was probed"):
        ckptdiff.probe(tmp_path / "base", [scheme(10)], limit=4, device="cpu", sink=touch)


def test_a_scheme_of_another_vocabulary_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "other"
    shutil.copytree(scheme(100), path)
    state = load_file(path / "model.safetensors")
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:500].clone()
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    report = ckptdiff.probe(BASE, [path, scheme(10)], limit=8, device="cpu")
    assert len(report.results) == 1
    assert report.unread[0].reason.endswith(
        "embed_tokens.weight holds [500, 96], and the model has [512, 96] there: the vocabularies "
        "differ"
    )


def test_a_scheme_of_another_model_is_not_compared(tmp_path: Path) -> None:
    """Its weights would be put into the model of the reference."""
    path, broken = tmp_path / "other", tmp_path / "broken"
    for each, old, new in (
        (path, '"rms_norm_eps": 1e-05', '"rms_norm_eps": 0.5'),
        (broken, '"architectures": [', '"architectures": [5,'),
    ):
        shutil.copytree(scheme(10), each)
        config = (each / "config.json").read_text()
        assert old in config
        (each / "config.json").write_text(config.replace(old, new))
    deep = tmp_path / "deep"
    shutil.copytree(scheme(10), deep)
    config = (deep / "config.json").read_text()
    nested = '{"a": ' * 400 + "1" + "}" * 400
    (deep / "config.json").write_text(config.replace("{", f'{{"extra": {nested},', 1))
    report = ckptdiff.probe(BASE, [path, broken, deep, scheme(30)], limit=4, device="cpu")
    assert [result.scheme for result in report.results] == [str(scheme(30))]
    reasons = {unread.path: unread.reason for unread in report.unread}
    assert reasons[str(path)].endswith("rms_norm_eps is 0.5, and 1e-05 there")
    assert "cannot be built" in reasons[str(broken)]
    assert len(reasons[str(deep)]) < 300
    with pytest.raises(UsageError, match="cannot be built"):
        ckptdiff.probe(broken, [scheme(30)], limit=4, device="cpu")


def test_the_tokenizer_is_borrowed_and_that_is_said(tmp_path: Path) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    for source, target in ((BASE, bare), (scheme(10), other)):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("tokenizer*", "chat*"))
    report = ckptdiff.probe(bare, [BASE], limit=4, device="cpu")
    assert report.notes == (f"the tokenizer is that of {BASE}: the reference has none",)
    assert report.results[0].kl.mean == 0 and report.results[0].indistinguishable
    with pytest.raises(UsageError, match="has no tokenizer, and no other checkpoint here has"):
        ckptdiff.probe(bare, [other], limit=4, device="cpu")
