"""CK110 tensor-not-indexed."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class TensorNotIndexed(ContainerRule):
    """A tensor of an indexed shard is not named by the index.

    Loaders that follow the index skip it; those that read whole files load it.

    What to do: take index and shards from the same export.
    """

    code = "CK110"
    name = "tensor-not-indexed"
    severity = "warning"
    since = "0.1"
    kind = "not-indexed"
