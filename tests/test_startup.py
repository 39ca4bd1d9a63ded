"""Light to start: what a command imports, and what `--help` costs, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import build
from command import COMMAND, environment

import ckptdiff

HEAVY = {"torch", "textual", "transformers", "modelopt", "numpy", "huggingface_hub"}
HELP_SECONDS = 0.1
RUNS = 12


def modules_after(program: str, *arguments: str | Path) -> set[str]:
    """Top-level names of the modules that are loaded when `program` has run."""
    listing = 'import json, sys\nsys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))'
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{listing}", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def modules_of_command(*arguments: str | Path) -> set[str]:
    """The modules that `ckptdiff ARGUMENTS…` loads."""
    program = """
from ckptdiff.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
"""
    return modules_after(program, *arguments)


def top(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_of_command("--help")
    assert not top(loaded) & (HEAVY | {"msgspec"})
    # One file a command, imported when it is used.
    assert not {"ckptdiff.api", "ckptdiff.cli.check", "ckptdiff.cli.scan"} & loaded


def test_help_is_instant() -> None:
    least = min(cpu_seconds(*COMMAND, "--help") for _ in range(RUNS))
    assert least < HELP_SECONDS


def cpu_seconds(*command: str) -> float:
    """User and system time of one run, however busy the machine is."""
    process = os.posix_spawn(
        command[0],
        command,
        environment(),
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_utime + usage.ru_stime


def test_check_and_scan_import_neither_torch_nor_a_terminal(tmp_path: Path) -> None:
    root = build.write_sweep(tmp_path)
    for arguments in (("check",), ("check", "--json"), ("scan",), ("scan", "--json")):
        command, *options = arguments
        # Values are looked at with numpy, once tensors are read.
        assert not top(modules_of_command(command, root, *options)) & (HEAVY - {"numpy"})


def test_judging_from_headers_needs_no_numpy(tmp_path: Path) -> None:
    root = build.write_sweep(tmp_path)
    for arguments in (("check", "--no-hash"), ("scan",)):
        command, *options = arguments
        assert not top(modules_of_command(command, root, *options)) & HEAVY


def test_the_package_imports_nothing_but_itself() -> None:
    before = modules_after("")
    loaded = modules_after("import ckptdiff") - before
    ours = {name for name in loaded if top({name}) == {"ckptdiff"}}
    assert ours == {"ckptdiff"}
    assert top(loaded - ours) <= sys.stdlib_module_names


def test_public_names_resolve() -> None:
    assert set(dir(ckptdiff)) == set(ckptdiff.__all__)
    for name in ckptdiff.__all__:
        assert getattr(ckptdiff, name) is not None
