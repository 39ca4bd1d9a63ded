"""`check`: the gate.

What judging takes is imported only when something has to be judged: the report of a sweep
that is as it was is remembered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ckptdiff.api.remembering import key_of, recall, remember
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.records.finding import Ignore
from ckptdiff.records.report import CheckReport, IdentityRow
from ckptdiff.records.request import Request
from ckptdiff.records.settings import FAIL_ON, REQUIREMENTS, FailOn, Requirement, Settings
from ckptdiff.sources.cache import Cache
from ckptdiff.sources.trace import tracing

if TYPE_CHECKING:
    from ckptdiff.api.common import StrPath


def check(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    hashes: bool = True,
    deep: bool = False,
    select: Sequence[str] = (),
    ignore: Sequence[str | Ignore] = (),
    fail_on: FailOn | None = None,
    require: Sequence[Requirement] = (),
    expect: int | None = None,
    settings: Settings | None = None,
    cache: bool = True,
    rehash: bool = False,
    jobs: int | None = None,
    on_identity: Callable[[tuple[IdentityRow, ...]], None] | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> CheckReport:
    """Read every scheme below `root`, run the rules, return the report.

    `base` is the full-precision checkpoint (found by itself where it can be), `hashes=False`
    judges from headers alone, `deep` recomputes every quantized weight from the base (a base
    that is missing then counts as unread), `select` and `ignore` take codes or their beginnings,
    `require` makes a missing base or manifest count as unread, `expect` is the least number
    of schemes, `jobs` the number of threads. `settings` supplies what is not given. Digests,
    and the report of a sweep that has not changed, are remembered between runs unless
    `cache=False`; `rehash` reads everything again. `on_identity` hears while tensors are
    hashed, in any thread, which of the first schemes have the same weights.

    Raises `RootError`, `BaseError`, `UsageError` for a request that cannot be carried out
    and `Cancelled` when `cancel` is set; never for what a checkpoint contains.
    """
    _require_known(select, ignore, fail_on, require, expect, jobs)
    settings = settings or Settings()
    request = Request(
        root=os.fspath(root),
        base=settings.base if base is None else os.fspath(base),
        base_found_by="ckptdiff.toml" if base is None else "--base",
        hashes=hashes,
        deep=deep,
        select=tuple(select) or settings.select,
        ignore=tuple(_ignore(item) for item in ignore) + settings.ignore,
        fail_on=fail_on or settings.fail_on or "error",
        require=tuple(require) or settings.require,
        expect=settings.expect if expect is None else expect,
        config=settings.path,
    )
    store = Cache() if cache else None
    key = key_of(request)
    if store and key and not rehash and (known := recall(store, key)):
        return known
    from ckptdiff.api.judging import judged

    started = time.time_ns()
    cancel = cancel or CancelToken()
    with tracing() as trace:
        report = judged(
            request,
            store=store,
            rehash=rehash,
            jobs=jobs,
            on_identity=on_identity,
            sink=sink,
            cancel=cancel,
        )
    if store and key:
        remember(store, key, report, trace, started)
    return report


def _require_known(
    select: Sequence[str],
    ignore: Sequence[str | Ignore],
    fail_on: str | None,
    require: Sequence[str],
    expect: int | None,
    jobs: int | None,
) -> None:
    """A gate with a typo in it must not pass: raise `UsageError` instead."""
    for name, value in (("select", select), ("ignore", ignore), ("require", require)):
        if isinstance(value, str):
            raise UsageError(f"{name} is a string", f"Give a list: {name}=[{value!r}].")
    if unknown := set(require) - set(REQUIREMENTS):
        raise UsageError(
            f"require has {sorted(unknown)[0]!r}", f"Known are {' and '.join(REQUIREMENTS)}."
        )
    if fail_on not in (None, *FAIL_ON):
        raise UsageError(f"fail_on is {fail_on!r}", f"Known are {', '.join(FAIL_ON)}.")
    if (expect is not None and expect < 0) or (jobs is not None and jobs < 1):
        raise UsageError("expect and jobs are counts", "expect is 0 or more, jobs 1 or more.")


def _ignore(item: str | Ignore) -> Ignore:
    return item if isinstance(item, Ignore) else Ignore(item, "ignored on the command line")
