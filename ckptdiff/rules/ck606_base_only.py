"""CK606 base-only."""

from __future__ import annotations

from ckptdiff.rules.against_base import BaseRule


class BaseOnly(BaseRule):
    """The base has tensors that no export carries.

    Heads for multi-token prediction, layers beyond the model's own, and buffers such as
    `inv_freq`.

    What to do: nothing.
    """

    code = "CK606"
    name = "base-only"
    severity = "info"
    since = "0.1"
    kind = "base_only"
    message = "tensors of the base that exports never have: {count}"
