"""Without the extra the command says so; and nothing else ever imports Textual."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import run


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("textual_serve", ("--serve",), "serve")],
)
def test_a_missing_extra_is_named(
    module: str, arguments: tuple[str, ...], extra: str, sweep: Path, tmp_path: Path
) -> None:
    # Every finder of modules, except that none of them finds this one.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            return None\n"
        "        return self.finder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = map(Without, sys.meta_path)\n"
    )
    done = run(
        "tui",
        sweep,
        *arguments,
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.code == 3
    assert f"{module} is not installed" in done.err
    assert f"pip install 'ckptdiff[{extra}]'" in done.err
