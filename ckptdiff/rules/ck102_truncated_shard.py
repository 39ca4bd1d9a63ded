"""CK102 truncated-shard."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class TruncatedShard(ContainerRule):
    """A shard ends before the data that its header promises.

    The header is intact, so the coverage of the scheme is still judged; the tensors at the
    end of the file have no bytes. A full disk or an interrupted copy does this.

    What to do: copy or export the shard again and compare its size with the source.
    """

    code = "CK102"
    name = "truncated-shard"
    severity = "error"
    since = "0.1"
    kind = "truncated"
