"""Exceptions in one line."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from ckptdiff.runtime.failures import first_line, is_out_of_room


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("  \n"), "ValueError"),
        (StopIteration(), "StopIteration"),
        (KeyError("nosuch"), "KeyError: 'nosuch'"),
        (ValueError("Validation error for field 'x':\n    TypeError: y"),
         "Validation error for field 'x': TypeError: y"),
        (ValueError("ends in a colon:"), "ends in a colon:"),
    ],
)  # fmt: skip
def test_an_exception_is_said_in_one_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (SafetensorError("Error: I/O error: No space left on device (os error 28)"), True),
        (SafetensorError("Error: I/O error: No such file or directory (os error 2)"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("28"), False),
    ],
)
def test_a_full_disk_is_told_from_other_failures(error: Exception, full: bool) -> None:
    assert is_out_of_room(error) == full
