"""What `y` copies prints the rows on screen, or says that it prints more."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from command import run
from driving import SAMPLES, drive, press
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.views import view_words
from ckptdiff.tui.widgets.grid import Grid


def copied(mode: str, filter: str, *keys: str) -> tuple[str, str, list[str]]:
    """The command that is copied, what it says of itself, and the rows on screen in order."""
    found: dict[str, Any] = {}

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        await press(pilot, mode, "slash")
        app.screen.query_one(Input).value = filter
        await press(pilot, "enter", *keys, "y")
        store = app.screen.query_one(Grid).store
        assert store is not None
        _, apart = view_words(app.state, store)
        found.update(line=app.clipboard, apart=apart, rows=[store.keys[r] for r in store.view])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SAMPLES.parent)
        drive("samples/copied", scenario)
    return found["line"], found["apart"], found["rows"]


def printed(line: str, rows: str, name: str) -> list[str]:
    program, *words = shlex.split(line)
    assert program == "ckptdiff"
    done = run(*words, "--json", cwd=SAMPLES.parent)
    assert done.code in (0, 1), done.err
    return [row[name] for row in json.loads(done.out)[rows]]


@pytest.mark.parametrize(
    ("filter", "options"),
    [
        ("", []),
        ("q_proj", ["--modules", "*q_proj*"]),
        ("status:mis", ["--mismatches"]),
        ("status:mismatch layers.0 proj", ["--modules", "*layers.0*proj*", "--mismatches"]),
    ],
)
def test_layers(filter: str, options: list[str]) -> None:
    line, apart, rows = copied("2", filter)
    assert shlex.split(line) == ["ckptdiff", "layers", "samples/copied", *options]
    assert apart == ""
    assert 0 < len(rows) == len(printed(line, "modules", "module"))
    assert rows == printed(line, "modules", "module")


@pytest.mark.parametrize("filter", ["!q_proj", "dtype:fp8 layers.1", "proj layers.0", "rule:CK302"])
def test_layers_without_an_option(filter: str) -> None:
    line, apart, rows = copied("2", filter)
    assert line == "ckptdiff layers samples/copied"
    assert apart == "the whole report"
    assert 0 < len(rows) < len(printed(line, "modules", "module"))


@pytest.mark.parametrize(
    ("filter", "options"),
    [
        ("", ["--limit", "--only", "same", "dtype"]),
        ("status:dtype", ["--limit", "--only", "dtype"]),
        ("status:same q_proj", ["--tensors", "*q_proj*", "--only", "same"]),
        ("layers.1.mlp", ["--tensors", "*layers.1.mlp*"]),
    ],
)
def test_diff(filter: str, options: list[str]) -> None:
    line, apart, rows = copied("4", filter)
    words = shlex.split(line)
    assert all(option in words for option in options)
    assert apart == ""
    assert sorted(printed(line, "tensors", "name")) == sorted(rows)
    text = run(*words[1:], cwd=SAMPLES.parent).out.decode()
    assert all(name.rpartition(".layers.")[2] in text for name in rows)


def test_diff_in_another_order(tmp_path: Path) -> None:
    line, apart, rows = copied("4", "status:dtype", *"sss")  # by SQNR, as they came, by tensor
    assert "--sort name" in line
    assert apart == ""
    assert printed(line, "tensors", "name") == rows
    line, apart, rows = copied("4", "!layers.0")
    assert line.startswith("ckptdiff diff samples/")
    assert "--tensors" not in line
    assert apart == "the whole report"
