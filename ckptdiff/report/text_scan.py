"""`ckptdiff scan` as text: the inventory."""

from __future__ import annotations

from ckptdiff.records.report import ScanReport
from ckptdiff.records.wording import plural
from ckptdiff.report.lines import COLUMNS, base_line, passed_over_lines, unread_lines, wrap
from ckptdiff.report.style import human_bytes
from ckptdiff.report.table import scheme_table


def scan_text(report: ScanReport, *, color: bool = False) -> str:
    """A `ScanReport` as text: the inventory."""
    total = sum(row.bytes for row in report.schemes)
    lines = [f"{plural(len(report.schemes), 'scheme')}, {human_bytes(total)} of tensors", ""]
    lines += scheme_table(report.schemes, columns=COLUMNS, color=color, judged=False)
    lines += ["", *base_line(report.base)]
    for row in report.schemes:
        dtypes = ", ".join(f"{dtype} {human_bytes(n)}" for dtype, n in row.dtypes.items())
        bits = row.actual.effective_bits if row.actual else None
        detail = f"{plural(row.tensors, 'tensor')}: {dtypes or 'none'}"
        detail += "" if bits is None else f"; {bits:.2f} bits a weight"
        detail += f"; {row.producer}" if row.producer else ""
        lines += ["", *wrap(row.id, ""), *wrap(detail, "  ")]
    lines += unread_lines(report.unread, color)
    lines += passed_over_lines(report.passed_over)
    return "\n".join(lines) + "\n"
