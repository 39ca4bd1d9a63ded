"""`ckptdiff.doctor/1`: the report of doctor, as it is written to JSON."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdiff.records.report import Tool

DOCTOR_SCHEMA = "ckptdiff.doctor/1"


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
