"""Reports and pictures to files: the bytes that the command line would write."""

from __future__ import annotations

from pathlib import Path

from ckptdiff import api
from ckptdiff.errors import UsageError
from ckptdiff.records.delta import DiffReport
from ckptdiff.records.layers import LayersReport
from ckptdiff.records.plan import PlanReport
from ckptdiff.records.probe import ProbeReport
from ckptdiff.records.report import CheckReport
from ckptdiff.tui.state import State

Report = CheckReport | LayersReport | DiffReport | PlanReport | ProbeReport

_SUFFIXES: dict[str, api.Format] = {
    ".json": "json",
    ".txt": "text",
    ".md": "markdown",
    ".svg": "svg",
}


def shown_report(state: State) -> Report | None:
    """The report behind what is on screen."""
    if state.mode == "layers":
        return state.layers
    if state.mode == "probe":  # one that is whole: the command never prints a part
        return state.probed.report if state.probed is not None and state.probed.complete else None
    if state.mode == "jobs":
        record = state.record(state.job)
        return record.result if record is not None else None
    return state.diff if state.mode == "diff" else state.report


def formats(report: Report | None) -> dict[str, api.Format]:
    """suffix -> format, for those that this report has."""
    only: tuple[api.Format, ...] = ("json", "text")
    if isinstance(report, CheckReport):
        only = ("json", "text", "markdown")
    elif isinstance(report, ProbeReport):
        only = ("json", "text", "markdown", "svg")
    return {suffix: format for suffix, format in _SUFFIXES.items() if format in only}


def write(report: Report | None, path: Path) -> str:
    """Write `report` in the format that the suffix picks, and say so. Raises `UsageError`."""
    known = formats(report)
    if report is None or path.suffix.lower() not in known:
        raise UsageError(
            f"{path}: no format goes with the suffix {path.suffix!r}",
            f"Known are {', '.join(known)}.",
        )
    return write_bytes(api.render(report, known[path.suffix.lower()]), path)


def write_bytes(data: bytes, path: Path) -> str:
    """Write `data` to a file outside of every checkpoint, and say so. Raises `UsageError`."""
    api.refuse_inside(path)
    api.write_file(path, data)
    return f"wrote {path} ({len(data):,} bytes)"
