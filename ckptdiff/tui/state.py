"""What the app knows: frozen records. Handlers replace them, screens draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ckptdiff.tui.text import labels

if TYPE_CHECKING:  # in all of the app: the first frame is there before the first record is
    from ckptdiff.records.delta import DiffReport
    from ckptdiff.records.detail import Overlap
    from ckptdiff.records.layers import LayersReport
    from ckptdiff.records.report import CheckReport, SchemeRow

Mode = Literal["sweep", "layers", "identity", "diff", "probe", "jobs"]
MODES: tuple[Mode, ...] = ("sweep", "layers", "identity", "diff", "probe", "jobs")
Theme = Literal["dark", "light"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the app was started with."""

    root: str = "."
    base: str | None = None
    config: str | None = None
    theme: Theme = "dark"
    read_only: bool = False
    watch: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one job is. `done` and `total` are in `unit`; `total` None: not known."""

    job: str
    stage: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is on screen, or could be.

    `hashed`: `report` is from hashes, not from headers alone. `problem` is what keeps us from
    looking again, such as a root that is gone; then the rest is as it was before. `failures`
    say by job why a result is not there. `pair` are the ids that Diff compares, the base
    by its id as well. `scheme` is the row under the cursor of Sweep.
    """

    options: Options = field(default_factory=Options)
    mode: Mode = "sweep"
    report: CheckReport | None = None
    hashed: bool = False
    layers: LayersReport | None = None
    overlap: Overlap | None = None
    diff: DiffReport | None = None
    pair: tuple[str, str] | None = None
    raw: bool = False
    scheme: str | None = None
    marked: tuple[str, ...] = ()
    changed: frozenset[str] = frozenset()
    gone: tuple[str, ...] = ()
    work: tuple[Progress, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def schemes(self) -> tuple[SchemeRow, ...]:
        return self.report.schemes if self.report else ()

    @property
    def row(self) -> SchemeRow | None:
        """The scheme under the cursor."""
        return next((row for row in self.schemes if row.id == self.scheme), None)

    @property
    def base_id(self) -> str | None:
        return self.report.base.id if self.report and self.report.base else None

    def label(self, id: str) -> str:
        """A short name that tells a scheme apart from the others."""
        return labels([row.id for row in self.schemes], self.base_id).get(id, id)

    def path_of(self, id: str) -> str:
        """The path of a scheme or of the base, as somebody in the working directory types it."""
        if id == ".":
            return self.options.root
        if id == self.base_id and self.options.base is not None:
            return self.options.base
        return str(Path(self.options.root, id))


def next_pair(state: State) -> tuple[str, str] | None:
    """What Diff compares: two marked schemes, else the base with the one under the cursor,
    else that one with its neighbour. None when there are not two."""
    ids = [row.id for row in state.schemes]
    marked = [id for id in ids if id in state.marked]
    if len(marked) == 2:
        return marked[0], marked[1]
    here = state.scheme if state.scheme in ids else next(iter(ids), None)
    if here is None:
        return None
    if state.base_id is not None:
        return state.base_id, here
    others = [id for id in ids if id != here]
    return (others[0], here) if others else None
