"""What the app knows: frozen records. Handlers replace them, screens draw them.

Small ones are named tuples, here and in all of the app: twenty dataclasses took 5 % of the time
to the first frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ckptdiff.tui.probing import Probed, ProbeForm
from ckptdiff.tui.text import labels

if TYPE_CHECKING:  # in all of the app: the first frame is there before the first record is
    from ckptdiff.records.delta import DiffReport
    from ckptdiff.records.detail import Overlap
    from ckptdiff.records.layers import LayersReport
    from ckptdiff.records.plan import PlanReport
    from ckptdiff.records.probe import ProbeReport
    from ckptdiff.records.report import CheckReport, IdentityRow, SchemeRow

Mode = Literal["sweep", "layers", "identity", "diff", "probe", "jobs"]
MODES: tuple[Mode, ...] = ("sweep", "layers", "identity", "diff", "probe", "jobs")
Theme = Literal["dark", "light"]


class Options(NamedTuple):
    """What the app was started with."""

    root: str = "."
    base: str | None = None
    config: str | None = None
    theme: Theme = "dark"
    read_only: bool = False
    watch: bool = True


class Progress(NamedTuple):
    """How far one job is. `done` and `total` are in `unit`; `total` None: not known."""

    job: str
    stage: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    seconds: float = 0.0


class Stopped(NamedTuple):
    """The result of a job that somebody cancelled; `reason` says what was done by then."""

    reason: str


class JobRecord(NamedTuple):
    """A re-export or a probe that runs or ran, as Jobs shows it.

    `name` is the bridge's for it and no other job's, `words` the command that does the same
    (without the program). `plan` is what was confirmed, by labels; `log` the last lines
    that it said. Times are seconds since the epoch; `ended` None: it runs. Of one that is over
    `result` is its report, or `failure` says why there is none, or not all of one.
    """

    name: str
    title: str
    words: tuple[str, ...]
    started: float
    plan: tuple[tuple[str, str], ...] = ()
    progress: Progress | None = None
    log: tuple[str, ...] = ()
    ended: float | None = None
    result: PlanReport | ProbeReport | None = None
    failure: str = ""
    cancelled: bool = False
    stopping: bool = False

    @property
    def runs(self) -> bool:
        return self.ended is None


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is on screen, or could be.

    `hashed`: `report` is from hashes, not from headers alone; until then `letters` says of the
    schemes that are hashed which are the same. `problem` is what keeps us from
    looking again, such as a root that is gone; then the rest is as it was before. `failures`
    say by job why a result is not there. `pair` are the ids that Diff compares, the base
    by its id as well. `form` is what Probe would run, `probed` what it ran. `scheme` is the row
    under the cursor of Sweep, `job` that of Jobs;
    `jobs` are in the order in which they were started. `deep`: quantized weights were
    recomputed for `report`. `repaired` were written anew since; once they are judged again the
    cursor of Sweep goes to `seek`, the next broken one.
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
    letters: tuple[IdentityRow, ...] = ()
    form: ProbeForm = field(default_factory=ProbeForm)
    probed: Probed | None = None
    jobs: tuple[JobRecord, ...] = ()
    job: str | None = None
    deep: bool = False
    repaired: tuple[str, ...] = ()
    seek: str | None = None

    @property
    def schemes(self) -> tuple[SchemeRow, ...]:
        return self.report.schemes if self.report else ()

    @property
    def row(self) -> SchemeRow | None:
        """The scheme under the cursor."""
        return next((row for row in self.schemes if row.id == self.scheme), None)

    @property
    def running(self) -> tuple[JobRecord, ...]:
        """The re-exports and probes that are not over."""
        return tuple(record for record in self.jobs if record.runs)

    def record(self, name: str | None) -> JobRecord | None:
        """The re-export or probe of this name."""
        return next((record for record in self.jobs if record.name == name), None)

    def with_record(self, record: JobRecord) -> State:
        """The state with `record` in the place of the one of its name, else as the newest."""
        if self.record(record.name) is None:
            return replace(self, jobs=(*self.jobs, record), job=record.name)
        jobs = tuple(record if old.name == record.name else old for old in self.jobs)
        return replace(self, jobs=jobs)

    @property
    def identity(self) -> tuple[IdentityRow, ...]:
        """Groups of schemes with the same weights, as far as they are known."""
        return self.report.identity if self.hashed and self.report else self.letters

    @property
    def base_id(self) -> str | None:
        return self.report.base.id if self.report and self.report.base else None

    @property
    def stuck(self) -> bool:
        """Whether there is no sweep to show, and a reason instead."""
        return self.report is None and bool(self.problem)

    def label(self, id: str) -> str:
        """A short name that tells a scheme apart from the others."""
        return labels([row.id for row in self.schemes], self.base_id).get(id, id)

    def path_of(self, id: str) -> str:
        """The path of a scheme or of the base, as somebody in the working directory types it."""
        if id == ".":
            return self.options.root
        if id == self.base_id and self.options.base is not None:
            return self.options.base
        path = str(Path(self.options.root, id))
        return f"./{path}" if path.startswith("-") else path  # or it would be an option


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
