"""What becomes of the jobs that Jobs shows: records of them, from one state to the next.

Which verb a job is, and what its report says, is not known here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from ckptdiff.tui.state import JobRecord, Progress, State, Stopped

if TYPE_CHECKING:
    from ckptdiff.records.plan import PlanReport
    from ckptdiff.records.probe import ProbeReport

# A clock that somebody sets while the app is open must not change how long a job took.
_EPOCH = time.time() - time.monotonic()
# Of what a job says the last lines are kept.
LOG_LINES = 1000


def clock() -> float:
    """Seconds since the epoch, counted from when the app was started."""
    return _EPOCH + time.monotonic()


def fresh_name(state: State, kind: str) -> str:
    """A name that no job of this state has: the bridge's, and the key of the row in Jobs."""
    return f"{kind} {1 + sum(record.name.startswith(f'{kind} ') for record in state.jobs)}"


def said(state: State, job: str, lines: tuple[str, ...]) -> State:
    """The state after a job said something."""
    record = state.record(job)
    if record is None:
        return state
    return state.with_record(record._replace(log=(*record.log, *lines)[-LOG_LINES:]))


def advanced(state: State, job: str, progress: Progress) -> State:
    """The state after a job got on."""
    record = state.record(job)
    return state if record is None else state.with_record(record._replace(progress=progress))


def ended(state: State, job: str, result: object, now: float) -> State:
    """The state after a job came to its end, or to the one that somebody asked for."""
    if isinstance(result, Stopped):
        return _over(state, job, now, failure=result.reason, cancelled=True)
    return _over(state, job, now, result=cast("PlanReport | ProbeReport", result))


def failed(state: State, job: str, reason: str, now: float) -> State:
    """The state after a job came to nothing; without a reason it was cancelled."""
    if not reason:
        return _over(state, job, now, failure="cancelled; nothing was changed", cancelled=True)
    return _over(state, job, now, failure=reason)


def stopping(state: State, job: str) -> State:
    """The state once somebody asked a job to stop."""
    record = state.record(job)
    return state if record is None else state.with_record(record._replace(stopping=True))


def _over(state: State, job: str, now: float, **changes: Any) -> State:
    record = state.record(job)
    if record is None or not record.runs:
        return state
    return state.with_record(record._replace(ended=now, stopping=False, **changes))


def loses(record: JobRecord) -> bool:
    """Whether cancelling throws away work that was done: what a probe has by then is kept."""
    if not record.runs or record.stopping:
        return False
    return record.words[0] == "reexport" and record.progress is not None
