"""What a ckptdiff.toml says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ckptdiff.records.finding import Ignore

# The severity from which on a finding makes exit code 1.
FailOn = Literal["error", "warning", "never"]
FAIL_ON: tuple[FailOn, ...] = ("error", "warning", "never")


@dataclass(frozen=True, slots=True)
class Settings:
    """`path` is None when there is no file; `base` is already resolved against it."""

    path: str | None = None
    base: str | None = None
    fail_on: FailOn | None = None
    require: tuple[str, ...] = ()
    expect: int | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[Ignore, ...] = ()
