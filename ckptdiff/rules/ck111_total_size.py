"""CK111 total-size."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class TotalSize(ContainerRule):
    """The index states another total size than its shards add up to.

    Nothing is loaded wrongly because of it, but the index was not written for these shards.

    What to do: take index and shards from the same export.
    """

    code = "CK111"
    name = "total-size"
    severity = "warning"
    since = "0.1"
    kind = "total-size"
