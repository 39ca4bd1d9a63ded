"""The rules that keep the parts apart, held by a machine."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptdiff

PACKAGE = Path(ckptdiff.__file__).parent
REPOSITORY = PACKAGE.parent
# Only these may talk to a terminal, and only these may end the process.
FRONT_ENDS = ("cli", "tui", "__main__.py")


def modules_below_the_front_ends() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in FRONT_ENDS
    )


def test_imports_point_down() -> None:
    # The program that `lint-imports` starts, without asking where it was installed.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    "path", modules_below_the_front_ends(), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_below_the_front_ends_talks_or_exits(path: Path) -> None:
    assert list(_misdeeds(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "import sys\nsys.exit(1)",
        "import sys\nsys.stdout.write('x')",
        "import sys as s\nprinter = s.stderr",
        "from sys import stderr",
        "exit()",
        "raise SystemExit",
        "import os\nos._exit(1)",
        "import os\nos.write(2, b'')",
        "import click",
    ],
)
def test_the_test_sees(source: str) -> None:
    assert list(_misdeeds(ast.parse(source)))


def _misdeeds(tree: ast.Module) -> Iterator[str]:
    """Every way to print or exit that is not for modules below the front ends."""
    forbidden = {"sys": {"exit", "stdout", "stderr", "__stdout__", "__stderr__"},
                 "os": {"_exit", "abort", "write"}}  # fmt: skip
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name: a.name for a in node.names if a.name in forbidden}
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if a.name == "click")
        elif isinstance(node, ast.ImportFrom):
            wrong = forbidden.get(node.module or "", set())
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if a.name in wrong)
            if (node.module or "").partition(".")[0] == "click":
                yield f"line {node.lineno}: click"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id, "")
            if node.attr in forbidden.get(module, ()):
                yield f"line {node.lineno}: {module}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in ("print", "exit", "quit", "SystemExit"):
            yield f"line {node.lineno}: {node.id}"
