"""CK112 stray-shard."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class StrayShard(ContainerRule):
    """A safetensors file lies beside the weights and no loader reads it.

    Usually the rest of an earlier export with another number of shards. Adapters and
    `consolidated` copies are not meant.

    What to do: look whether the index should name it; remove it otherwise.
    """

    code = "CK112"
    name = "stray-shard"
    severity = "warning"
    since = "0.1"
    kind = "stray-shard"
