"""A probe as a job: how it is started, and what its news make of the state.

The mode's rows and lines are not known here, nor how jobs are listed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptdiff import api
from ckptdiff.errors import ChildError
from ckptdiff.events import CancelToken, Sink
from ckptdiff.records.wording import plural
from ckptdiff.tui.bridge import Bridge, Paced
from ckptdiff.tui.following import followed
from ckptdiff.tui.probing import STOPPED, Probed, asked, names, subjects, words
from ckptdiff.tui.running import clock, fresh_name
from ckptdiff.tui.state import JobRecord, Progress, State

if TYPE_CHECKING:
    from ckptdiff.records.probe import ProbeReport

# What is said before the child says anything: it imports torch.
STARTING = "start"


def start(bridge: Bridge, state: State) -> State:
    """Run what the form says; the state with that, and with a record of the job."""
    arguments = asked(state)
    command = words(arguments)
    assert arguments is not None and command is not None  # no_run would have had a reason
    call, job = _call(arguments), fresh_name(state, "probe")

    def task(sink: Sink, cancel: CancelToken) -> ProbeReport:
        paced = Paced(lambda part: bridge.tell(job, cancel, part), sink)
        with _log(lambda lines: bridge.log(job, lines)) as log:
            return api.probe(**call, log=log, on_result=paced, sink=paced.sink, cancel=cancel)

    bridge.start(job, task)
    probed = Probed(job, arguments, names(state))
    record = JobRecord(job, _title(probed), command, clock(), _plan(state))
    state = replace(state, probed=probed, work=(*state.work, Progress(job, STARTING)))
    return state.with_record(record)


def _title(probed: Probed) -> str:
    return f"probe of {plural(len(probed.names), 'scheme')}"


def _plan(state: State) -> tuple[tuple[str, str], ...]:
    """What was chosen, for whoever looks at the job later."""
    reference, others = subjects(state)
    form = state.form
    return (
        ("reference", reference or ""),
        ("schemes", ", ".join(others)),
        ("prompts", (form.prompts or "built in") + (f", {form.limit:,}" if form.limit else "")),
        ("device", form.device),
        ("dtype", form.dtype),
        ("activations", form.activations),
        ("perplexity", "yes" if form.perplexity else "no"),
    )


@contextmanager
def _log(say: Callable[[tuple[str, ...]], None]) -> Iterator[Path]:
    """A file for what the child prints, whose lines are said as they come. It is kept only when
    the child failed: the error names it."""
    log = Path(tempfile.mkdtemp(prefix="ckptdiff-")) / "probe.log"
    kept = False
    try:
        with followed(log, say):
            yield log
    except ChildError:
        kept = True
        raise
    finally:
        if not kept:
            shutil.rmtree(log.parent, ignore_errors=True)


def _call(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the command makes them of its words: paths are paths."""
    found = dict(arguments)
    for name in ("reference", "sweep", "base", "prompts"):
        if name in found:
            found[name] = Path(found[name])
    if "others" in found:
        found["others"] = tuple(map(Path, found["others"]))
    return found


def partly(state: State, job: str, report: ProbeReport) -> State:
    """The state with what is computed by now."""
    if state.probed is None or state.probed.job != job or not state.probed.running:
        return state
    return replace(state, probed=state.probed._replace(report=report))


def done(state: State, job: str, report: ProbeReport) -> State:
    """The state with all that was computed."""
    if state.probed is None or state.probed.job != job:
        return state
    return replace(state, probed=state.probed._replace(report=report, running=False))


def failed(state: State, job: str, reason: str) -> State:
    """The state with a probe that came to nothing; without a reason somebody stopped it."""
    if state.probed is None or state.probed.job != job:
        return state
    return replace(state, probed=state.probed._replace(running=False, problem=reason or STOPPED))
