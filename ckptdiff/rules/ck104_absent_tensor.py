"""CK104 absent-tensor."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class AbsentTensor(ContainerRule):
    """The index names a tensor that its shard does not hold.

    A loader that follows the index fails, or leaves the parameter at its random start.

    What to do: take index and shards from the same export. An index copied from another
    scheme is the usual cause: quantized schemes have scales that others have not.
    """

    code = "CK104"
    name = "absent-tensor"
    severity = "error"
    since = "0.1"
    kind = "absent-tensor"
