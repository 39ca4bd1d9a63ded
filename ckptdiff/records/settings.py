"""What a ckptdiff.toml says."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdiff.records.finding import Ignore


@dataclass(frozen=True, slots=True)
class Settings:
    """`path` is None when there is no file; `base` is already resolved against it."""

    path: str | None = None
    base: str | None = None
    fail_on: str | None = None
    require: tuple[str, ...] = ()
    expect: int | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[Ignore, ...] = ()
