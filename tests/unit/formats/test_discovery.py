"""Which checkpoints lie below a root, and which base lies around it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from build import SweepSpec, check, config, write_base, write_json

from ckptdiff.formats.configs import parse_model_config
from ckptdiff.formats.discovery import MAX_DEPTH, find_bases, find_checkpoints, model_identity

IDENTITY = model_identity(parse_model_config(config()))


def ids(root: Path) -> list[str]:
    return [id for id, _ in find_checkpoints(root).checkpoints]


def test_nested_and_hidden_directories(sweep: Path) -> None:
    shutil.copytree(sweep / SweepSpec().scheme(10), sweep / "more" / "deep" / "x")
    shutil.copytree(sweep / SweepSpec().scheme(10), sweep / ".hidden" / "x")
    assert "more/deep/x" in ids(sweep)
    assert not any(id.startswith(".hidden") for id in ids(sweep))
    assert ".hidden" in {item.path for item in find_checkpoints(sweep).passed_over}


def test_a_link_to_a_directory_above_ends(sweep: Path) -> None:
    (sweep / "loop").symlink_to(sweep)
    found = find_checkpoints(sweep)
    assert len(found.checkpoints) == 4
    assert {item.path: item.reason for item in found.passed_over}["loop"].startswith("links back")


def test_a_linked_scheme_is_a_scheme(sweep: Path) -> None:
    (sweep / "linked").symlink_to(sweep / SweepSpec().scheme(10))
    assert "linked" in ids(sweep)


def test_a_maze_of_links_is_bounded(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"d{n}").mkdir()
    for n in range(12):
        for m in range(12):
            (tmp_path / f"d{n}" / f"l{m}").symlink_to(tmp_path / f"d{m}")
    found = find_checkpoints(tmp_path)
    assert len(found.passed_over) < 3_000


def test_depth_is_bounded_and_said(tmp_path: Path) -> None:
    write_base(tmp_path.joinpath(*"abcdefghijklmnopqrst"))
    found = find_checkpoints(tmp_path)
    assert found.checkpoints == []
    assert [item.reason for item in found.unread] == [f"lies more than {MAX_DEPTH} levels down"]


@pytest.mark.parametrize("place", ["base", "../base", "../models/base", "../models/a/base"])
def test_places_where_a_base_is_found(tmp_path: Path, place: str) -> None:
    root = tmp_path / "quantized"
    root.mkdir()
    write_base((root / place).resolve())
    assert len(find_bases(root, IDENTITY).candidates) == 1


@pytest.mark.parametrize("place", ["../models/a/b/base", "../.cache/base"])
def test_places_where_a_base_is_not_looked_for(tmp_path: Path, place: str) -> None:
    root = tmp_path / "quantized"
    root.mkdir()
    write_base((root / place).resolve())
    assert find_bases(root, IDENTITY).candidates == ()


def test_two_bases_are_none_and_both_are_named(sweep: Path) -> None:
    write_base(sweep.parent / "other")
    report = check(sweep)
    assert report.base is None
    (skip,) = (skip for skip in report.skipped if skip.code == "CK6")
    assert "../base" in skip.reason and "../other" in skip.reason


def test_a_linked_base_counts_once(sweep: Path) -> None:
    (sweep.parent / "latest").symlink_to(sweep.parent / "base")
    report = check(sweep)
    assert report.base is not None


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 17}, {"num_hidden_layers": 5}, {"architectures": ["MistralForCausalLM"]}],
)
def test_another_model_is_no_base(sweep: Path, change: dict[str, object]) -> None:
    write_json(sweep.parent / "base" / "config.json", config() | change)
    assert check(sweep).base is None


def test_a_base_without_weights_is_none(sweep: Path) -> None:
    (sweep.parent / "base" / "model.safetensors").unlink()
    assert check(sweep).base is None


def test_two_models_in_one_sweep_have_no_base(sweep: Path) -> None:
    path = sweep / SweepSpec().scheme(10) / "config.json"
    path.write_text(path.read_text().replace("LlamaForCausalLM", "MistralForCausalLM"))
    report = check(sweep)
    assert report.base is None
    assert any("2 different models" in skip.reason for skip in report.skipped)
