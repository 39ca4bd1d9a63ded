"""Text that every Python brings along: its standard library's docstrings, sources and manual."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

HELD_OUT_EVERY = 25  # one document in 25, that is 4 %
# Tests and generated tables are repetitive; third-party packages differ between machines.
PASSED_OVER = {"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data"}


def _docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module, its classes and its functions, in source order."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text


def _library_documents(library: Path) -> Iterator[str]:
    """Each module's docstrings followed by its source."""
    for path in sorted(library.rglob("*.py")):
        if PASSED_OVER.isdisjoint(path.relative_to(library).parts):
            source = path.read_text(encoding="utf-8", errors="replace")
            yield "\n\n".join([*_docstrings(source), source])


def _language_reference() -> Iterator[str]:
    """The chapters behind the interactive `help()`."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]


def documents() -> tuple[list[str], list[str]]:
    """All documents, as (training, held out); the split is by whole document."""
    library = Path(sysconfig.get_paths()["stdlib"])
    every = [*_library_documents(library), *_language_reference()]
    held_out = every[::HELD_OUT_EVERY]
    training = [text for i, text in enumerate(every) if i % HELD_OUT_EVERY]
    return training, held_out
