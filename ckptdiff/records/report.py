"""The reports of check and scan, field by field as they are written to JSON.

The JSON Schemas are generated from these classes; the order of fields is the order of keys.
Reports of other verbs have modules of their own: making classes takes time at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.finding import Finding, Location, Severity, Skip
from ckptdiff.records.sweep import PassedOver

CHECK_SCHEMA = "ckptdiff.check/1"
SCAN_SCHEMA = "ckptdiff.scan/1"

# What is worst about a scheme, infos aside; "unread" when something of it could not be
# looked at and no error is known all the same.
Status = Literal["ok", "warning", "error", "unread"]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class BaseRow:
    id: str
    found_by: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`complete` is False when anything was not read; `safe` names schemes to rely on."""

    status: Literal["pass", "fail"]
    complete: bool
    sentence: str
    safe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeclaredRow:
    """`selected` of `total` modules; both null when only a name declares a share."""

    percent: float | None
    selected: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class ActualRow:
    """`quantized` of `total` modules on disk."""

    quantized: int
    total: int
    effective_bits: float | None


@dataclass(frozen=True, slots=True)
class ProofRow:
    """Quantized modules recomputed from the base. `wrong`: codes or scales are not what base
    gives; `searched`: no closed form tells. `dialects` are the dtypes of the model and the
    devices ("BF16 cuda") that explain what was proven, most of it first; without a device
    where both would have written these bytes."""

    proven: int
    searched: int
    wrong: int
    unknown: int
    dialects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SchemeRow:
    """One scheme. `dtypes` maps a dtype to bytes; `identity` is the letter of its group;
    `proof` is null unless weights were recomputed."""

    id: str
    family: str
    algo: str | None
    producer: str
    bytes: int
    tensors: int
    modules: int
    declared: DeclaredRow | None
    actual: ActualRow | None
    dtypes: dict[str, int]
    fingerprint: str | None
    identity: str | None
    status: Status
    proof: ProofRow | None = None


@dataclass(frozen=True, slots=True)
class IdentityRow:
    letter: str
    fingerprint: str
    schemes: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class IgnoredFinding:
    """A finding that a setting ignores, with the reason that was given."""

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
    reason: str

    @classmethod
    def of(cls, finding: Finding, reason: str) -> IgnoredFinding:
        values = {field.name: getattr(finding, field.name) for field in fields(finding)}
        return cls(**values, reason=reason)


@dataclass(frozen=True, slots=True)
class Counts:
    schemes: int
    errors: int
    warnings: int
    infos: int
    ignored: int
    skipped: int
    unread: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The whole report. Sorted, without clock and host; paths are relative to `root`."""

    schema: str
    tool: Tool
    root: str
    config: str | None
    base: BaseRow | None
    verdict: Verdict
    schemes: tuple[SchemeRow, ...]
    identity: tuple[IdentityRow, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skip, ...]
    ignored: tuple[IgnoredFinding, ...]
    unread: tuple[Unread, ...]
    passed_over: tuple[PassedOver, ...]
    counts: Counts

    @property
    def why_no_base(self) -> str:
        """Why there is no base to hold schemes against, "" when there is one."""
        reasons = (skip.reason for skip in self.skipped if skip.code == "CK6")
        return next(reasons, "").removeprefix("no base: ")


@dataclass(frozen=True, slots=True)
class ScanReport:
    """`ckptdiff.scan/1`: the inventory of a sweep from headers alone, judged by no rule."""

    schema: str
    tool: Tool
    root: str
    base: BaseRow | None
    schemes: tuple[SchemeRow, ...]
    unread: tuple[Unread, ...]
    passed_over: tuple[PassedOver, ...]
