"""Exceptions in one line."""

from __future__ import annotations

import pytest

from ckptdiff.runtime.failures import first_line


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
