"""`ckptdiff doctor` as text."""

from __future__ import annotations

from ckptdiff.records.doctor import DoctorReport
from ckptdiff.report.escape import printable
from ckptdiff.report.style import human_bytes, paint


def doctor_text(report: DoctorReport, *, color: bool = False) -> str:
    """Versions, devices, and what a missing part would enable and how to get it."""
    lines = [
        f"ckptdiff {report.tool.version}, Python {report.python}, {report.processors} processors",
        f"GPUs: {', '.join(map(printable, report.devices)) or 'none that torch sees'}",
        f"cache: {printable(report.cache)} ({human_bytes(report.cache_bytes)})",
        "",
    ]
    for part in report.capabilities:
        if part.version is not None:
            mark, state = paint("+", "ok", color), part.version
        else:
            mark, state = paint("-", "warning", color), "not installed"
        lines.append(f"{mark} {part.name:<16} {state:<16} {part.enables}")
        if part.version is None:
            lines.append(f"  {'':<16} {part.install}")
    return "\n".join(lines) + "\n"
