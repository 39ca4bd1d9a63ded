"""What every format does with findings before it writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ckptdiff.records.finding import Finding, Location


def merged_infos(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Infos that say the same of several schemes as one; the JSON has them one by one."""
    merged: dict[object, Finding] = {}
    for finding in findings:
        key = (finding.code, finding.message, finding.expected, finding.actual, finding.locations)
        if finding.severity != "info" or len(finding.schemes) > 1:
            yield finding
        elif key in merged:
            merged[key] = replace(merged[key], schemes=merged[key].schemes + finding.schemes)
        else:
            merged[key] = finding
    yield from merged.values()


def place_of(location: Location) -> str:
    """A location in one line."""
    where = location.module or location.tensor or location.shard or ""
    if location.module is None and location.tensor and location.shard:
        where = f"{location.shard}: {location.tensor}"
    if location.offset is not None:
        where += f" at byte {location.offset:,}"
    if location.expected and location.actual:
        return f"{where}: expected {location.expected}, found {location.actual}"
    found = location.actual or location.expected
    return f"{where}: {found}" if found else where
