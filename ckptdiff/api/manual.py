"""`rule` and `doctor`: what the rules are, and what this installation can do."""

from __future__ import annotations

from ckptdiff.api.common import tool
from ckptdiff.jobs import doctor as found
from ckptdiff.records.doctor import DOCTOR_SCHEMA, DoctorReport
from ckptdiff.records.finding import RuleInfo
from ckptdiff.rules.registry import matching, table
from ckptdiff.sources.cache import Cache


def rule_table(code: str | None = None) -> tuple[RuleInfo, ...]:
    """The rule table; the rows that match `code` when it is given.

    Raises `UsageError` when nothing matches.
    """
    if code is None:
        return table()
    return tuple(rule.info() for rule in matching((code,)))


def doctor() -> DoctorReport:
    """What this installation can do. Asks a child process for GPUs, which takes seconds."""
    return DoctorReport(
        schema=DOCTOR_SCHEMA,
        tool=tool(),
        python=found.python(),
        processors=found.processors(),
        devices=found.devices(),
        cache=str(Cache().path),
        cache_bytes=found.cache_size(),
        capabilities=found.capabilities(),
    )
