"""For other people's test suites: fail when two schemes of a sweep are one.

from ckptdiff.testing import assert_distinct

def test_every_scheme_has_its_own_weights():
    assert_distinct("models/quantized")
"""

from __future__ import annotations

import os

from ckptdiff.api import check

__all__ = ["assert_distinct"]


def assert_distinct(
    root: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> None:
    """Raise `AssertionError` when schemes below `root` carry the same weights by mistake.

    By default two schemes may be the same when nothing that they declare differs (a
    re-export beside its original). With `strict` no two schemes may be the same at all.
    A scheme whose tensors could not all be read fails as well: not having looked is not
    the same as being distinct. Raises `RootError` when there is nothing below `root`.
    """
    __tracebackhide__ = True
    report = check(root, base=base, select=("CK5",))
    problems = [
        f"{finding.code} {finding.message}: {', '.join(finding.schemes)}"
        for finding in report.findings
        if finding.code == "CK501" or (strict and finding.code == "CK502")
    ]
    problems += [f"{item.path} was not read: {item.reason}" for item in report.unread]
    problems += [
        f"{row.id} was not compared: not all of its tensors could be hashed"
        for row in report.schemes
        if row.fingerprint is None and row.status != "unread"
    ]
    if problems:
        raise AssertionError("\n".join(["schemes are not distinct", *problems]))
