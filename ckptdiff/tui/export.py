"""Reports and pictures to files: the bytes that the command line would write."""

from __future__ import annotations

from pathlib import Path

from ckptdiff import api
from ckptdiff.errors import UsageError
from ckptdiff.records.delta import DiffReport
from ckptdiff.records.layers import LayersReport
from ckptdiff.records.report import CheckReport
from ckptdiff.tui.state import State

Report = CheckReport | LayersReport | DiffReport

_SUFFIXES: dict[str, api.Format] = {".json": "json", ".txt": "text", ".md": "markdown"}


def shown_report(state: State) -> Report | None:
    """The report behind what is on screen."""
    if state.mode == "layers":
        return state.layers
    return state.diff if state.mode == "diff" else state.report


def formats(report: Report | None) -> dict[str, api.Format]:
    """suffix -> format, for those that this report has."""
    only = ("json", "text", "markdown") if isinstance(report, CheckReport) else ("json", "text")
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
