"""The reports, field by field as they are written to JSON.

The JSON Schemas are generated from these classes; the order of fields is the order of keys.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.finding import Finding, Location, Severity, Skip
from ckptdiff.records.sweep import PassedOver

CHECK_SCHEMA = "ckptdiff.check/1"
SCAN_SCHEMA = "ckptdiff.scan/1"
LAYERS_SCHEMA = "ckptdiff.layers/1"
HASH_SCHEMA = "ckptdiff.hash/1"
VERIFY_SCHEMA = "ckptdiff.verify/1"
DOCTOR_SCHEMA = "ckptdiff.doctor/1"

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
class SchemeRow:
    """One scheme. `dtypes` maps a dtype to bytes; `identity` is the letter of its group."""

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


@dataclass(frozen=True, slots=True)
class Cell:
    """One module in one scheme. `dtype` is None where the scheme has no such module;
    `selected` and `agrees` are None where no manifest says what it should be."""

    dtype: str | None
    quantized: bool
    selected: bool | None
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One module through all schemes, in their order."""

    module: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class LayersReport:
    """`ckptdiff.layers/1`: modules x schemes, dtypes and agreement with the manifests."""

    schema: str
    tool: Tool
    root: str
    schemes: tuple[str, ...]
    modules: tuple[LayerRow, ...]
    mismatches: int
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor with its digest, xxh3_128 in hex; None when it could not be read."""

    name: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    digest: str | None


@dataclass(frozen=True, slots=True)
class FileRow:
    """One shard with its SHA-256, for tools that know nothing of tensors."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class HashReport:
    """`ckptdiff.hash/1`: the fingerprint of a checkpoint and the digests it is made of.

    `files` is empty unless SHA-256 was asked for.
    """

    schema: str
    tool: Tool
    path: str
    fingerprint: str | None
    tensors: tuple[TensorRow, ...]
    files: tuple[FileRow, ...]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor that is not as the lock has it."""

    name: str
    what: Literal["changed", "missing", "extra"]
    expected: str | None
    actual: str | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`ckptdiff.verify/1`: a checkpoint against a lock file."""

    schema: str
    tool: Tool
    path: str
    lock: str
    same: bool
    expected: str
    fingerprint: str | None
    differences: tuple[Difference, ...]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True)
class Capability:
    """One optional part: whether it is there, and what it is or would be good for."""

    name: str
    version: str | None
    enables: str
    install: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """`ckptdiff.doctor/1`: what this installation can do."""

    schema: str
    tool: Tool
    python: str
    processors: int
    devices: tuple[str, ...]
    cache: str
    cache_bytes: int
    capabilities: tuple[Capability, ...]


Report = CheckReport | ScanReport | LayersReport | HashReport | VerifyReport | DoctorReport
