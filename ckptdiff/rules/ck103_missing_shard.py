"""CK103 missing-shard."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class MissingShard(ContainerRule):
    """The index, or the numbering of the files, promises a shard that is not there.

    What to do: copy the missing file, or export again. An export that was killed writes
    its shards before its index, a download the other way round.
    """

    code = "CK103"
    name = "missing-shard"
    severity = "error"
    since = "0.1"
    kind = "missing-shard"
