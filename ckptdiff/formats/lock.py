"""Lock files: the digests of one checkpoint as text, to be committed and checked later.

Tensors are comment lines, so that a lock with SHA-256 sums of the files is also what
`sha256sum -c` takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ckptdiff.errors import UsageError
from ckptdiff.records.hashes import FileRow, HashReport

_HEAD = "# ckptdiff lock 1"


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file pins: the fingerprint, and (dtype, shape, digest) by tensor name."""

    fingerprint: str
    tensors: dict[str, tuple[str, tuple[int, ...], str]]


def write_lock(report: HashReport) -> str:
    """The lock file of a checkpoint of which every tensor was read."""
    return "\n".join([*_lines(report), *map(_sum_line, report.files)]) + "\n"


def _lines(report: HashReport) -> Iterator[str]:
    yield _HEAD
    yield f"# fingerprint {report.fingerprint}"
    for row in sorted(report.tensors, key=lambda row: row.name):
        fields = json.dumps([row.dtype, list(row.shape), row.name])
        yield f"# tensor {row.digest} {fields}"


def _sum_line(row: FileRow) -> str:
    """As `sha256sum` writes it: names with a backslash or a newline are escaped and marked."""
    escaped = row.name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{chr(92) if escaped != row.name else ''}{row.sha256}  {escaped}"


def parse_lock(text: str, name: str) -> Lock:
    """The lock in `text`. Raises `UsageError` when it is none of ours."""
    lines = text.splitlines()
    try:
        if lines[:1] != [_HEAD]:
            raise ValueError(f"does not begin with {_HEAD!r}")
        kind, fingerprint = lines[1].removeprefix("# ").split(" ")
        if kind != "fingerprint" or not fingerprint.startswith("ckptdiff1:"):
            raise ValueError("has no fingerprint in its second line")
        tensors = dict(_tensor(line) for line in lines[2:] if line.startswith("# tensor "))
    except (ValueError, IndexError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{name} is no lock file of this version: {error}",
            "`ckptdiff hash DIR --lock FILE` writes one.",
        ) from error
    return Lock(fingerprint, tensors)


def _tensor(line: str) -> tuple[str, tuple[str, tuple[int, ...], str]]:
    _, _, digest, fields = line.split(" ", 3)
    dtype, shape, name = json.loads(fields)
    if not isinstance(name, str) or not isinstance(dtype, str):
        raise ValueError(f"has a line that is not understood: {line[:60]}")
    bytes.fromhex(digest)
    return name, (dtype, tuple(int(size) for size in shape), digest)
