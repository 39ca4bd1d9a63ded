"""CK107 overlap."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class Overlap(ContainerRule):
    """Two tensors of one shard claim the same bytes.

    Whoever wrote the header counted wrong, so at least one of the two tensors is not what
    its name says. The safetensors library refuses such a file.

    What to do: export the shard again.
    """

    code = "CK107"
    name = "overlap"
    severity = "error"
    since = "0.1"
    kind = "overlap"
