"""What exceptions of torch, transformers and others mean: they raise what they like.

What to do about a failure is decided where it happens.
"""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or for the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("allocate memory" in text or "alloc_cpu" in text)


def first_line(error: BaseException) -> str:
    """An exception in one line: messages go on for pages, and some are empty or a bare key.

    >>> first_line(KeyError("nosuch"))
    "KeyError: 'nosuch'"
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    if isinstance(error, LookupError):
        return f"{type(error).__name__}: {lines[0]}"
    # "Validation error for field 'x':" says what it is in the next.
    return " ".join(line.strip() for line in lines[: 1 + lines[0].endswith(":")])
