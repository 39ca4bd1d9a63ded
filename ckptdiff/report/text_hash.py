"""`ckptdiff hash` as text: the fingerprint and its digests, or what differs from a lock."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.hashes import HashReport, VerifyReport
from ckptdiff.records.wording import plural
from ckptdiff.report.escape import printable
from ckptdiff.report.lines import SHOWN, unread_lines, wrap
from ckptdiff.report.style import paint


def hash_text(report: HashReport, *, color: bool = False) -> str:
    """One line for the checkpoint, then one a tensor: digest, dtype, shape, name."""
    lines = [f"{report.fingerprint or 'unknown'}  {printable(report.path)}"]
    lines += [
        f"{row.digest or '?' * 32}  {row.dtype:<8} {list(row.shape)!s:<16} {printable(row.name)}"
        for row in report.tensors
    ]
    lines += [f"{row.sha256}  {printable(row.name)}" for row in report.files]
    return "\n".join([*lines, *unread_lines(report.unread, color)]) + "\n"


def verify_text(report: VerifyReport, *, color: bool = False) -> str:
    """Whether the checkpoint is the locked one, and where it is not."""
    return "\n".join(_verify_lines(report, color)) + "\n"


def _verify_lines(report: VerifyReport, color: bool) -> Iterator[str]:
    if report.same:
        yield from wrap(f"SAME: {report.path} is what {report.lock} has locked", "")
    elif report.differences:
        count = plural(len(report.differences), "tensor")
        yield from wrap(f"DIFFERENT: {count} of {report.path} are not as in {report.lock}", "")
    else:
        yield from wrap(f"NOT COMPLETE: not all of {report.path} could be read", "")
    yield f"  locked {report.expected}"
    yield f"  found  {report.fingerprint or 'unknown'}"
    for difference in report.differences[:SHOWN]:
        what = paint(difference.what, "error", color)
        yield f"  - {what} {printable(difference.name)}"
        yield from wrap(f"locked {difference.expected or 'nothing'}", "      ")
        yield from wrap(f"found  {difference.actual or 'nothing'}", "      ")
    if len(report.differences) > SHOWN:
        yield f"    … {len(report.differences) - SHOWN:,} more, all of them in the JSON"
    yield from unread_lines(report.unread, color)
