"""CK109 tensor-in-two-shards."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class TensorInTwoShards(ContainerRule):
    """One tensor name is in two shards.

    Which of the two a loader takes depends on the loader.

    What to do: export again, or remove the shard that the index does not name.
    """

    code = "CK109"
    name = "tensor-in-two-shards"
    severity = "error"
    since = "0.1"
    kind = "twice"
