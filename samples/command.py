"""What the sample scripts share on the command line; imports nothing heavy."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

# ModelOpt imports requests without declaring it.
NEEDED = ("torch", "transformers", "modelopt", "requests")


def report(line: str) -> None:
    """A progress line on stderr, which leaves stdout to results."""
    print(line, file=sys.stderr, flush=True)


def require_modelopt() -> None:
    """End with the remedy where an import would end with a traceback."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed. Try: pip install 'ckptdiff[modelopt]'")


def make_readable(folder: Path) -> None:
    """Give a checkpoint's files the usual mode; safetensors writes 0600."""
    for path in folder.iterdir():
        path.chmod(0o644)
