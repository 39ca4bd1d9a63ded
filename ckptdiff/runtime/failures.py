"""What exceptions of torch, transformers and others mean: they raise what they like.

What to do about a failure is decided where it happens.
"""

from __future__ import annotations

import errno

import torch

# What says so beside torch's own exception: its allocator on a CPU, a CUDA context or a Triton
# kernel that finds no room, cuBLAS and cuDNN for their workspaces.
NO_MEMORY = ("allocate memory", "alloc_cpu", "out of memory", "_STATUS_ALLOC_FAILED")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or for the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(said in text for said in NO_MEMORY)


def is_out_of_room(error: BaseException) -> bool:
    """Whether an exception says that a disk is full; safetensors has one of its own for that."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    return any(f"os error {number})" in str(error) for number in _NO_ROOM)


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
