"""README, command line and Python API say the same."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest
from command import run

import ckptdiff
from ckptdiff import api
from ckptdiff.cli.main import COMMANDS
from ckptdiff.cli.main import ckptdiff as group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def command(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


def options(name: str) -> set[str]:
    return {option for param in command(name).params for option in param.opts}


def test_the_first_output_is_what_the_command_prints() -> None:
    block = README.partition("$ ckptdiff check samples/copied\n")[2].partition("```")[0]
    shown, _, rest = block.partition("\n…\n")
    printed = run("check", "samples/copied", cwd=ROOT)
    assert printed.text.startswith(shown)
    assert rest == f"{printed.text.splitlines()[-1]}\n$ echo $?\n{printed.code}\n"


def test_the_table_of_commands_is_whole() -> None:
    rows = re.findall(r"^\| `ckptdiff (\w+)", README, re.MULTILINE)
    assert rows == list(COMMANDS)


EXAMPLES = [
    line
    for line in re.findall(r"(?:^|\[\. ]|run: |`)(ckptdiff \w+[^`\n]*)", README, re.MULTILINE)
    if line.split()[1] in COMMANDS
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_has_options_that_exist(line: str) -> None:
    words = shlex.split(re.split(r"\s+[#>|]", line)[0])
    used = {word for word in words[2:] if word.startswith("-")}
    assert used <= options(words[1])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_examples(name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert f"ckptdiff {name}" in done.text.partition("\n")[2]
    assert all(len(line) <= 80 for line in done.text.splitlines())


# Options whose name in Python differs, and those that belong to the terminal alone.
SPELLED = {"no_hash": "hashes", "no_cache": "cache", "config": "settings", "modules": "pattern"}
TERMINAL = {"format_", "as_json", "output", "progress"}
# What only a caller in Python can hear.
CALLBACKS = {"sink", "cancel", "on_identity"}


@pytest.mark.parametrize("name", ["check", "scan", "layers"])
def test_the_api_takes_what_the_command_takes(name: str) -> None:
    parameters = inspect.signature(getattr(api, name)).parameters
    taken = {param.name for param in command(name).params} - TERMINAL
    spelled = {SPELLED.get(param, param).removesuffix("s") for param in taken if param}
    assert spelled == {p.removesuffix("s") for p in parameters} - CALLBACKS


def test_every_public_name_resolves_and_is_documented() -> None:
    for name in ckptdiff.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(ckptdiff, name))


def test_nothing_else_is_promised() -> None:
    """The Python examples of the README use public names alone."""
    used = set(re.findall(r"ckptdiff\.(\w+)\(", README))
    assert used <= set(ckptdiff.__all__)
