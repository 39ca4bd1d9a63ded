"""CK603 extra-against-base."""

from __future__ import annotations

from ckptdiff.rules.against_base import BaseRule


class ExtraAgainstBase(BaseRule):
    """The scheme has a tensor that the base has not, and that is no scale.

    It belongs to another model, or to a layer that this one does not have.

    What to do: find out which model the scheme was exported from.
    """

    code = "CK603"
    name = "extra-against-base"
    severity = "error"
    since = "0.1"
    kind = "extra"
    message = "tensors that the base does not have: {count}"
