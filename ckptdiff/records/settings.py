"""What a ckptdiff.toml says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ckptdiff.records.finding import Ignore

# The severity from which on a finding makes exit code 1.
FailOn = Literal["error", "warning", "never"]
FAIL_ON: tuple[FailOn, ...] = get_args(FailOn)
# What a sweep can be told to have.
Requirement = Literal["base", "manifest"]
REQUIREMENTS: tuple[Requirement, ...] = get_args(Requirement)


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
