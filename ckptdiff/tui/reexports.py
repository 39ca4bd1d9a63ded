"""A re-export as the app asks for it: of which schemes, with what, as a call and in words.

Nothing is drawn in here, and nothing written before `carried_out` runs in a thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptdiff import api
from ckptdiff.errors import Cancelled, CkptdiffError
from ckptdiff.events import CancelToken, Event, Sink, Started
from ckptdiff.records.wording import plural
from ckptdiff.report.style import human_bytes
from ckptdiff.tui.following import followed
from ckptdiff.tui.running import fresh_name
from ckptdiff.tui.state import JobRecord, Stopped
from ckptdiff.tui.text import fit

if TYPE_CHECKING:
    from ckptdiff.records.export import ExportOptions, Score
    from ckptdiff.records.plan import Engine, PlanReport
    from ckptdiff.tui.state import State

# What can be chosen about a model that is run, beside preset and rows.
TUNING = ("calib_samples", "calib_length", "seed", "trust_remote_code")
# Columns for the name of a scheme in front of its plan.
_LABEL = 14
Words = tuple[str, ...]
Say = Callable[[tuple[str, ...]], None]


class Request(NamedTuple):
    """What somebody chose. `schemes` are paths, `base` None: searched for, `donors` empty:
    the schemes of the family, `out` "": beside the originals, unless `in_place`. `preset` "":
    the scheme's own, `calib` "": the built-in rows; numbers None: the command's defaults."""

    schemes: tuple[str, ...]
    base: str | None = None
    engine: Engine = "auto"
    donors: tuple[str, ...] = ()
    in_place: bool = False
    out: str = ""
    preset: str = ""
    calib: str = ""
    score: Score = "gradient"
    calib_samples: int | None = None
    calib_length: int | None = None
    seed: int | None = None
    trust_remote_code: bool = False

    @property
    def runs_model(self) -> bool:
        """Whether a model may be run, so that a preset and rows for it have a meaning."""
        return self.engine != "compose"

    @property
    def is_tuned(self) -> bool:
        """Whether a model is run for certain. Only then is there more to choose about that: in
        little room, the plan is worth more."""
        return self.engine in ("modelopt", "autoquant")

    @property
    def searches(self) -> bool:
        """Whether layers are searched among, so that a score for them has a meaning."""
        return self.engine == "autoquant"

    @property
    def options(self) -> ExportOptions:
        """What was chosen for a model that is run; the default where it has no meaning."""
        from ckptdiff.records.export import ExportOptions

        if not self.runs_model:
            return ExportOptions()
        names = ["preset", "calib", *(TUNING if self.is_tuned else ())]
        names += ["score"] if self.searches else []
        chosen: dict[str, Any] = {name: getattr(self, name) for name in names}
        return ExportOptions(**{n: value for n, value in chosen.items() if value not in ("", None)})

    @property
    def words(self) -> Words:
        """The command that does the same, and asks nothing."""
        found = ["reexport", *self.schemes]
        found += [] if self.engine == "auto" else ["--engine", self.engine]
        found += [] if self.base is None else ["--base", self.base]
        found += [word for donor in self.donors for word in ("--donor", donor)]
        options = self.options
        for field in fields(options):
            if (value := getattr(options, field.name)) != field.default:
                option = f"--{field.name.replace('_', '-')}"
                found += [option] if value is True else [option, str(value)]
        found += ["--out", self.out] if self.out else []
        return (*found, *(["--in-place"] if self.in_place else []), "--yes")


class Answer(NamedTuple):
    """What became of a request: a plan, or why there is none."""

    request: Request
    planned: api.Planned | None
    problem: str = ""

    @property
    def possible(self) -> bool:
        return self.planned is not None and self.planned.report.possible


# Which schemes


@cache
def repairable() -> frozenset[str]:
    """The codes of the rules whose findings a re-export repairs."""
    return frozenset(rule.code for rule in api.rule_table() if rule.fix == "reexport")


def broken(state: State) -> tuple[str, ...]:
    """The ids of schemes that a re-export would repair, those left out beside which a `_v2`
    without errors lies already."""
    if state.report is None:
        return ()
    found = state.report.findings
    faulty = {
        id
        for finding in found
        if finding.severity != "info" and finding.code in repairable()
        for id in finding.schemes
    }
    sound = {row.id for row in state.schemes if row.status != "error"}
    return tuple(
        row.id for row in state.schemes if row.id in faulty and f"{row.id}_v2" not in sound
    )


def targets(state: State) -> tuple[str, ...]:
    """The ids of what is re-exported: the marked schemes, else the broken ones, else the one
    under the cursor."""
    marked = tuple(row.id for row in state.schemes if row.id in state.marked)
    here = () if state.scheme is None else (state.scheme,)
    return marked or broken(state) or here


def next_broken(state: State, done: tuple[str, ...]) -> str | None:
    """The first broken scheme behind those that are done, around the end."""
    ids = [row.id for row in state.schemes]
    last = max((ids.index(id) for id in done if id in ids), default=-1)
    wanted = set(broken(state)) - set(done)
    return next((id for id in (*ids[last + 1 :], *ids[: last + 1]) if id in wanted), None)


def request_of(state: State) -> Request | None:
    """What is asked for as long as nobody chose anything; None without a scheme."""
    if not (ids := targets(state)):
        return None
    base = None if state.base_id is None else state.path_of(state.base_id)
    return Request(tuple(map(state.path_of, ids)), base)


# What it takes


def planned(request: Request, sink: Sink, cancel: CancelToken) -> Answer:
    """The plans, or in words why there are none. Writes nothing."""
    try:
        found = api.plan_reexport(
            request.schemes,
            engine=request.engine,
            base=request.base,
            donors=request.donors,
            out=request.out or None,
            in_place=request.in_place,
            options=request.options,
            sink=sink,
            cancel=cancel,
        )
    except Cancelled:
        raise
    except CkptdiffError as error:
        return Answer(request, None, str(error))
    return Answer(request, found)


def carried_out(answer: Answer, say: Say, sink: Sink, cancel: CancelToken) -> PlanReport | Stopped:
    """Write what was planned, and `say` meanwhile what it does and what a child prints.

    A child's log is kept only when something failed, whose message names it.
    """
    assert answer.planned is not None
    say(("prove donors, write beside the target, check, rename",))
    log = Path(tempfile.mkdtemp(prefix="ckptdiff-")) / "export.log"
    kept = True
    try:
        with followed(log, say):
            report = api.execute(answer.planned, log=log, sink=_narrated(sink, say), cancel=cancel)
        kept = report.failed
    except Cancelled as error:
        kept = False
        return Stopped(str(error))
    finally:
        if not kept or not log.exists():
            log.unlink(missing_ok=True)
            log.parent.rmdir()
    return report


def _narrated(sink: Sink, say: Say) -> Sink:
    """A sink that says the beginning of each stage as well."""

    def heard(event: Event) -> None:
        sink(event)
        if isinstance(event, Started):
            say((f"{event.stage}{_amount(event)}",))

    return heard


def _amount(event: Started) -> str:
    if event.total is None:
        return ""
    of_bytes = event.unit == "bytes"
    unit = event.unit.removesuffix("s")
    return f": {human_bytes(event.total) if of_bytes else plural(event.total, unit)}"


def record_of(state: State, answer: Answer, now: float) -> JobRecord:
    """The record of a re-export that begins now."""
    from ckptdiff.tui.plan_view import in_a_line

    assert answer.planned is not None
    names = {state.path_of(row.id): state.label(row.id) for row in state.schemes}
    plans = tuple(
        (fit(names.get(path, plan.scheme), _LABEL).rstrip(), in_a_line(plan))
        for path, plan in zip(answer.request.schemes, answer.planned.report.plans, strict=True)
    )
    what = plans[0][0] if len(plans) == 1 else plural(len(plans), "scheme")
    return JobRecord(
        name=fresh_name(state, "re-export"),
        title=f"re-export of {what}",
        words=answer.request.words,
        started=now,
        plan=plans,
    )
