"""Every error that ckptdiff raises on purpose, and the exit code that goes with it.

A message says what happened; `next_step` says what to do about it. A malformed or
unreadable file of a checkpoint is *not* an error: it is a `Defect` or an `Unread`
record, so that one bad shard never hides what the others show.

    CkptdiffError            exit 2
    ├── UsageError           exit 2   the request itself cannot be carried out
    │   ├── RootError        exit 2   ROOT does not exist, or holds no checkpoint
    │   ├── BaseError        exit 2   the base that was named cannot be used
    │   └── SettingsError    exit 2   ckptdiff.toml says something we do not understand
    ├── CapabilityError      exit 3   an extra or a device is missing
    ├── ChildError           exit 4   a child process failed
    └── Cancelled            exit 130 somebody asked us to stop
"""

from __future__ import annotations


class CkptdiffError(Exception):
    """Base of the tree. `message` is one sentence, `next_step` is what to do next."""

    exit_code = 2

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}\n{self.next_step}" if self.next_step else self.message


class UsageError(CkptdiffError):
    """The request cannot be carried out as it was made."""


class RootError(UsageError):
    """ROOT does not exist, cannot be listed, or holds no checkpoint."""


class BaseError(UsageError):
    """The base that was named is not a readable full-precision checkpoint."""


class SettingsError(UsageError):
    """`ckptdiff.toml` cannot be read, or holds a key or value that is not known."""


class CapabilityError(CkptdiffError):
    """Something optional is needed and not installed or not there."""

    exit_code = 3


class ChildError(CkptdiffError):
    """A child process ended with a failure."""

    exit_code = 4


class Cancelled(CkptdiffError):
    """The work was cancelled before it was complete."""

    exit_code = 130

    def __init__(self, message: str = "cancelled before it was complete") -> None:
        super().__init__(message, "Run the same command again; nothing was changed.")
