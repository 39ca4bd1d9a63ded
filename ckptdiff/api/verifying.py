"""What judges a directory that was written, before it gets its name: the rules, all of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ckptdiff.errors import CkptdiffError
from ckptdiff.events import CancelToken, Sink
from ckptdiff.jobs.placing import Verify
from ckptdiff.records.request import Request
from ckptdiff.sources.cache import Cache


def verifier(
    base: str | None, remembered: Cache, jobs: int | None, sink: Sink, cancel: CancelToken
) -> Verify:
    """What judges a finished directory before it gets its name: `check --deep`.

    `remembered` spares what was worked out about base and donors before. The new files are
    strangers to it: they are read back, and proofs are known by the digests of what they are of.
    """
    return partial(_verified, base=base, remembered=remembered, jobs=jobs, sink=sink, cancel=cancel)


def _verified(
    folder: Path,
    base: str | None,
    remembered: Cache,
    jobs: int | None,
    sink: Sink,
    cancel: CancelToken,
) -> str | None:
    """The fingerprint of a finished directory, which the rules find nothing wrong with."""
    from ckptdiff.api.judging import judged

    request = Request(root=str(folder), base=base, base_found_by="--base", deep=True)
    report = judged(request, store=remembered, rehash=False, jobs=jobs, sink=sink, cancel=cancel)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        raise CkptdiffError(
            f"what was written does not pass: {errors[0].code} {errors[0].message}"
            + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""),
            "Nothing was changed. `ckptdiff check --deep` on what is repaired, donors and base "
            "tells more.",
        )
    if report.unread:
        unread = report.unread[0]
        raise CkptdiffError(
            f"what was written could not be read back: {unread.path}: {unread.reason}",
            "Nothing was changed. Run this again.",
        )
    (row,) = report.schemes
    return row.fingerprint
