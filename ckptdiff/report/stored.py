"""A report as it is remembered between runs, together with what it was made from.

Compact JSON, decoded strictly into the records: a stored report that is damaged, or was
written by somebody else, does not decode, and is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ckptdiff.records.report import CheckReport


class Stored(msgspec.Struct, frozen=True):
    """`seen` maps each path that was looked at to what was there."""

    seen: dict[str, tuple[int, ...]]
    report: CheckReport


def encode(report: CheckReport, seen: Mapping[str, tuple[int, ...]]) -> bytes | None:
    """The stored form; None when a name in it is no text that JSON can hold."""
    try:
        return msgspec.json.encode(Stored(dict(seen), report))
    except UnicodeEncodeError:
        return None


def decode(data: bytes) -> Stored | None:
    """The report and what it was made from; None when this is no stored report."""
    try:
        return msgspec.json.decode(data, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
