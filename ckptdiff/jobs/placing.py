"""Gives what a run makes a place: built beside it, judged, then renamed.

Whatever stops a run (a full disk, a kill, a base that changes) leaves sources and originals as
they were, and nothing half-made under a final name. What fills a directory, and what judges it,
is handed in: neither is known here.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ckptdiff.errors import Cancelled, CkptdiffError, UsageError
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.staging import Place, reserved, sync_directory, uninterrupted
from ckptdiff.records.plan import Outcome, Plan
from ckptdiff.records.report import Tool
from ckptdiff.sources.local import (
    CHANGED,
    Unreadable,
    identity,
    open_regular,
    read_range,
    reason_of,
)

# Judges a finished directory and gives its fingerprint, read back; raises `CkptdiffError`.
Verify = Callable[[Path], str | None]
NOTHING = "Nothing was changed."
_PART_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class How:
    """What a run needs: `hashing` for the fingerprints of sources, the number of threads.

    `log` takes what a child prints; with None that is kept only when the child fails."""

    tool: Tool
    verify: Verify
    hashing: Hashing
    jobs: int | None
    sink: Sink
    cancel: CancelToken
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """What a directory was filled with. `notes` and `seconds` are for the outcome."""

    fingerprint: str | None
    bytes: int
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


# Fills an empty directory and has it judged; raises `CkptdiffError`, `OSError`, `Unreadable`.
Fill = Callable[[Path], Filled]


def write_all(todo: Sequence[tuple[Plan, Fill]], how: How) -> tuple[Outcome, ...]:
    """Write the checkpoint of every plan; what keeps one from being written is in its outcome.

    Raises `Cancelled`, which says what had been written by then.
    """
    outcomes: list[Outcome] = []
    for plan, fill in todo:
        try:
            how.cancel.raise_if_cancelled()
            _write(plan, fill, how, outcomes)
        except (Cancelled, KeyboardInterrupt) as error:
            if not outcomes:
                raise
            if len(outcomes) == len(todo):
                break  # too late: all is done
            raise _stopped(outcomes, [plan for plan, _ in todo]) from error
        except (CkptdiffError, OSError, Unreadable) as error:
            what = told(plan, error)
            outcomes.append(
                Outcome(
                    plan.scheme,
                    plan.target,
                    "failed",
                    reason=what.message,
                    next_step=what.next_step or None,
                    exit_code=what.exit_code,
                )
            )
    return tuple(outcomes)


def _write(plan: Plan, fill: Fill, how: How, outcomes: list[Outcome]) -> None:
    """Write one checkpoint; its outcome is in `outcomes` once it has its name."""
    target = Path(plan.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with reserved(target) as place:
        cleaned = place.recover()
        if not plan.in_place and os.path.lexists(target):
            raise UsageError(f"{target} is there already", "Remove it, or name --out.")
        if plan.in_place and not target.is_dir():
            raise UsageError(f"{target} is not there any more", "Check the path.")
        require_room(plan)
        with place.build() as folder:
            filled = fill(folder)
            how.cancel.raise_if_cancelled()
            with uninterrupted():
                aside = _publish(place, folder, plan)
                outcomes.append(
                    Outcome(
                        plan.scheme,
                        plan.target,
                        "written",
                        fingerprint=filled.fingerprint,
                        bytes=filled.bytes,
                        set_aside=None if aside is None else str(aside),
                        cleaned=cleaned,
                        notes=filled.notes,
                        seconds=filled.seconds,
                    )
                )


def _publish(place: Place, folder: Path, plan: Plan) -> Path | None:
    if plan.in_place:
        return place.replace(folder)
    place.publish(folder)
    return None


def _stopped(outcomes: Sequence[Outcome], plans: Sequence[Plan]) -> Cancelled:
    """What to say when somebody stops a run of which a part is done."""
    written = [outcome.scheme for outcome in outcomes if outcome.status == "written"]
    error = Cancelled(f"stopped; {', '.join(written) or 'nothing'} was written")
    rest = [plan.scheme for plan in plans if plan.scheme not in written]
    error.next_step = f"What was written is whole. Run this again for {', '.join(rest)} alone."
    return error


def require_room(plan: Plan) -> None:
    free = shutil.disk_usage(Path(plan.target).parent).free
    if plan.bytes > free:
        raise UsageError(
            f"{plan.target} needs {plan.bytes:,} bytes and {free:,} are free",
            f"{NOTHING} Make room, or name --out on another disk.",
        )


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file, fsynced. Raises `Unreadable`, which names the source, when that
    cannot be read or changed, `OSError` when the target cannot be written."""
    try:
        _copy(source, target)
    except Unreadable as error:
        raise Unreadable(f"{source.name}: {error.reason}") from error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(source) as file, target.open("xb") as out:
        done = 0
        while part := read_range(file.fd, done, _PART_BYTES):
            out.write(part)
            done += len(part)
        if identity(file.fd) != file.identity:
            raise Unreadable(CHANGED)
        out.flush()
        os.fsync(out.fileno())


def write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        sync_directory(path)


def size_of(folder: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def told(plan: Plan, error: Exception) -> CkptdiffError:
    """An error in words that say what to do, with the assurance that nothing happened."""
    match error:
        case CkptdiffError():
            return error
        case Unreadable():
            return CkptdiffError(
                f"a source of {plan.scheme} cannot be read: {error.reason}",
                f"{NOTHING} Run this again when nothing writes to base and donors.",
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return CkptdiffError(
                f"{plan.target} cannot be written: {os.strerror(error.errno).lower()}",
                f"{NOTHING} Make room, or name --out on another disk.",
            )
        case OSError():
            return CkptdiffError(
                f"{plan.target} cannot be written: {reason_of(error)}",
                f"{NOTHING} Name a directory that can be written by --out.",
            )
    return CkptdiffError(str(error))
