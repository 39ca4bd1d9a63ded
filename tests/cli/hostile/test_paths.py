"""Paths on the command line that lead to no base, or are empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import build
import pytest
from command import check, run
from forging import SECOND, SINGLE, dangling, fifo, loop, write_one


@pytest.mark.parametrize(
    "make",
    [
        None,
        Path.touch,
        Path.mkdir,
        loop,
        dangling,
        fifo,
        lambda path: write_one(path, salt="quantized"),
        lambda path: break_base(path, lambda raw: raw[:-1]),
        lambda path: break_base(path, lambda raw: b"no header"),
        lambda path: break_base(path, lambda raw: b""),
    ],
    ids=["nothing", "file", "empty-directory", "loop", "dangling", "fifo", "quantized",
         "truncated", "malformed", "empty-shard"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "scan"])
def test_base_that_is_none(
    root: Path, tmp_path: Path, command: str, make: Callable[[Path], object] | None
) -> None:
    base = tmp_path / "base"
    if make:
        make(base)
    result = run(command, root, "--base", base)
    assert result.code == 2
    assert result.out == b""
    assert "base" in result.err
    assert len(result.err.splitlines()) >= 2, "there is no next step"


def break_base(path: Path, change: Callable[[bytes], bytes]) -> None:
    build.write_base(path, 1)
    file = path / SINGLE
    file.write_bytes(change(file.read_bytes()))


def test_base_without_one_of_its_shards(root: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    build.write_weights(base, build.base_tensors(1), shards=2)
    build.write_json(base / "config.json", build.config(1))
    assert run("check", root, "--base", base).code == 0
    (base / SECOND).unlink()
    assert run("check", root, "--base", base).code == 2


def test_broken_base_that_is_found_by_search(sweep: Path) -> None:
    outside = sweep.parent / "base"
    file = outside / SINGLE
    file.write_bytes(file.read_bytes()[:-1])
    result = check(sweep)
    assert result.code == 0
    assert result.report["base"] is None
    assert check(sweep, "--require", "base").code == 2
    # Inside ROOT it is one of the checkpoints to judge, and must not drop out of sight.
    outside.rename(sweep / "base")
    result = check(sweep)
    assert result.code == 1
    assert "CK102" in result.codes_of("base")


@pytest.mark.parametrize("words", [("check", ""), ("diff", "", "."), ("scan", ".", "--base", "")])
def test_an_empty_path_is_not_the_working_directory(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.code == 2
    assert "it is empty" in result.err
