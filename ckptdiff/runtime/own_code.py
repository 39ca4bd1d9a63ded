"""Code that comes with a model: what is said where it would have to be run, and nobody asked."""

from __future__ import annotations

from pathlib import Path

from ckptdiff.errors import UsageError


def refuses_own_code(error: BaseException) -> bool:
    """Whether transformers found code beside a checkpoint that it was not told to run."""
    return "trust_remote_code" in str(error)


def own_code(part: str, path: Path) -> UsageError:
    """The refusal to run it. `part` is what brings it, such as the model or the tokenizer."""
    return UsageError(
        f"the {part} in {path} has code of its own, which is not run unasked",
        "Look at its .py files, then give --trust-remote-code to probe, reexport or sweep, "
        "trust_remote_code=True to load_model.",
    )
