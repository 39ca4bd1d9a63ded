"""CK602 missing-against-base."""

from __future__ import annotations

from ckptdiff.rules.against_base import BaseRule


class MissingAgainstBase(BaseRule):
    """The base has a tensor that the scheme has not.

    A loader leaves the parameter at its random start, or fails. A tied lm_head, heads for
    multi-token prediction and buffers are not expected. Experts that the base holds in one
    tensor and the scheme one by one are looked for one by one.

    What to do: export again, or copy the missing shard.
    """

    code = "CK602"
    name = "missing-against-base"
    severity = "error"
    since = "0.1"
    kind = "missing"
    message = "tensors of the base that are missing: {count}"
