"""Remembers the report of a sweep for as long as nothing of what it was made from changes.

A report depends on the request, on this program, and on the files and directories that were
looked at; each of those is in the key or checked before the report is used again. Only a
complete report is remembered: what could not be looked at must be tried again.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import xxhash

from ckptdiff import __version__
from ckptdiff.records.report import CheckReport
from ckptdiff.records.request import Request
from ckptdiff.sources.cache import Cache
from ckptdiff.sources.trace import Trace, is_settled, still_holds

_VERSION = b"1"


def key_of(request: Request) -> bytes | None:
    """The key of a request made here, by this user, of this program; None for no place."""
    try:
        here = (str(Path.cwd()), os.path.realpath(request.root), os.geteuid())
    except (OSError, ValueError):  # a directory that is gone, or a name that cannot be
        return None
    what = repr((here, request, __version__, _program())).encode("utf-8", "surrogatepass")
    return b"report" + _VERSION + xxhash.xxh3_128_digest(what)


def recall(cache: Cache, key: bytes) -> CheckReport | None:
    """The report under `key`, if everything that it was made from is as it was."""
    blob = cache.get([key]).get(key)
    if blob is None:
        return None
    from ckptdiff.report.stored import decode

    stored = decode(blob)
    return stored.report if stored and still_holds(stored.seen) else None


def remember(cache: Cache, key: bytes, report: CheckReport, trace: Trace, started_ns: int) -> None:
    """Store a complete report whose files had settled before it was begun."""
    if report.unread or trace.torn or not is_settled(trace.seen, started_ns):
        return
    from ckptdiff.report.stored import encode

    if blob := encode(report, trace.seen):
        cache.put({key: blob})


@cache
def _program() -> list[tuple[str, int, int]]:
    """What the files of this program are: a developer's rules change between two versions.

    Looked up once, as a module is: what changes while this process runs does not run in it.
    """
    package = Path(__file__).parents[1]
    with_status = ((path.name, path.stat()) for path in package.rglob("*.py"))
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in with_status)
