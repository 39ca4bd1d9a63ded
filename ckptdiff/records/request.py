"""What a run of `check` is asked for, with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdiff.records.finding import Ignore
from ckptdiff.records.settings import FailOn


@dataclass(frozen=True, slots=True)
class Request:
    """Everything besides the files themselves that a report depends on.

    `base` None: search for it. `config` is the ckptdiff.toml that supplied a part of this.
    """

    root: str
    base: str | None
    base_found_by: str
    hashes: bool = True
    deep: bool = False
    select: tuple[str, ...] = ()
    ignore: tuple[Ignore, ...] = ()
    fail_on: FailOn = "error"
    require: tuple[str, ...] = ()
    expect: int | None = None
    config: str | None = None
