"""CK605 other-dtype."""

from __future__ import annotations

from ckptdiff.rules.against_base import BaseRule


class OtherDtype(BaseRule):
    """Unquantized tensors equal the base's values, stored in another dtype.

    A base in float32 under an export in BF16 gives this for every tensor: cast to BF16 the
    base is the same to the bit.

    What to do: nothing.
    """

    code = "CK605"
    name = "other-dtype"
    severity = "info"
    since = "0.1"
    needs = ("headers", "hashes", "base")
    kind = "other_dtype"
    message = "tensors that equal base's, in another dtype: {count}"
