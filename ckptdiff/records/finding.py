"""What a rule found, and what a rule is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

# What a rule must have before it can judge a scheme.
Need = Literal["headers", "hashes", "values", "base", "manifest", "modelopt", "proof"]
Fix = Literal["none", "reexport"]


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """One place where a finding shows. Fields that do not apply are None.

    `offset` is in bytes from the start of the shard or document.
    """

    module: str | None = None
    tensor: str | None = None
    shard: str | None = None
    offset: int | None = None
    expected: str | None = None
    actual: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: one per rule and scheme, or one per group of schemes."""

    code: str
    name: str
    severity: Severity
    schemes: tuple[str, ...]
    message: str
    next_step: str
    expected: str | None
    actual: str | None
    locations: tuple[Location, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """One row of the rule table."""

    code: str
    name: str
    severity: Severity
    since: str
    needs: tuple[Need, ...]
    fix: Fix
    summary: str
    manual: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """A rule that could not judge a scheme, because something it needs is not there."""

    code: str
    scheme: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Somebody's decision not to be stopped by a rule. `schemes` empty: everywhere.

    `code` may be a prefix such as "CK3"; the reason is shown with every ignored finding.
    """

    code: str
    reason: str
    schemes: tuple[str, ...] = ()
