"""CK108 gap."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class Gap(ContainerRule):
    """A shard has bytes that belong to no tensor.

    The format allows none between tensors or behind the last one: a hole means that a
    tensor was dropped from the header, or that something was appended to the file.

    What to do: export the shard again; look at what is in the gap before you trust it.
    """

    code = "CK108"
    name = "gap"
    severity = "error"
    since = "0.1"
    kind = "gap"
