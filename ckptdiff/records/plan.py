"""`ckptdiff.plan/1`: what `sweep` and `reexport` would do, and did, as written to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckptdiff.records.report import Tool

PLAN_SCHEMA = "ckptdiff.plan/1"

# What `--engine` takes.
Engine = Literal["auto", "compose", "modelopt", "autoquant"]
ENGINES: tuple[Engine, ...] = ("auto", "compose", "modelopt", "autoquant")
# "proven": bit for bit what base gives. "distance": no closed form says what the weight must
# be, so only its distance from base is known.
Evidence = Literal["proven", "distance"]


@dataclass(frozen=True, slots=True)
class SelectedModule:
    """A module that will be quantized. `source` is the id of the donor whose tensors it takes;
    null when they are made from base. `evidence` is what will be known of its weight."""

    module: str
    source: str | None
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class MissingModule:
    """A module that should be quantized and that nothing supplies."""

    module: str
    reason: str


@dataclass(frozen=True, slots=True)
class Donor:
    """A checkpoint that tensors are taken from; `modules` counts them."""

    id: str
    path: str
    algorithm: str | None
    modules: int


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """A file that is copied from another checkpoint."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One scheme that is to be written.

    `original` is the directory that is repaired (null for a new scheme); `in_place`: it is set
    aside as `<name>.broken-N` and `target` takes its name. `missing` or `refused` not empty:
    it cannot be done, and they say why. `bytes` will be written where `free` bytes are.
    """

    scheme: str
    target: str
    original: str | None
    in_place: bool
    engine: Literal["compose", "modelopt", "autoquant"]
    why: str
    algorithm: str | None
    base: str | None
    donors: tuple[Donor, ...] = ()
    selected: tuple[SelectedModule, ...] = ()
    dropped: tuple[str, ...] = ()
    missing: tuple[MissingModule, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    carried: tuple[CarriedFile, ...] = ()
    provenance: str = ""
    bytes: int = 0
    free: int | None = None

    @property
    def possible(self) -> bool:
        """Whether it can be carried out."""
        return not (self.missing or self.refused)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one plan. `set_aside` is where the original went, `cleaned` what earlier
    runs that were killed had left and was removed or finished. `exit_code` is that of the error,
    `notes` and `seconds` (of each stage) are what an exporter said."""

    scheme: str
    target: str
    status: Literal["written", "failed", "not done"]
    fingerprint: str | None = None
    bytes: int = 0
    reason: str | None = None
    next_step: str | None = None
    set_aside: str | None = None
    cleaned: tuple[str, ...] = ()
    exit_code: int = 0
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The plans of one command, and what became of them: no outcomes before it was done."""

    schema: str
    tool: Tool
    plans: tuple[Plan, ...]
    outcomes: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether every plan can be carried out."""
        return all(plan.possible for plan in self.plans)

    @property
    def failed(self) -> bool:
        """Whether something that was asked for is not, or would not be, done."""
        undone = any(outcome.status != "written" for outcome in self.outcomes)
        return undone or not self.possible
