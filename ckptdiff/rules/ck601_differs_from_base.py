"""CK601 differs-from-base."""

from __future__ import annotations

from ckptdiff.records.against_base import Pair
from ckptdiff.rules.against_base import BaseRule


class DiffersFromBase(BaseRule):
    """An unquantized tensor has other values than the base's.

    What a scheme does not quantize it takes over: the base's tensor, cast to the dtype in
    which it is stored, byte for byte. The norms in front of what AWQ quantized, and up_proj
    and v_proj where NVFP4_AWQ quantized the linear behind, have scales folded into them and are
    not compared; that a norm goes with the weights behind it is seen by `check --deep`.

    What to do: find out which model the scheme was exported from. One that was trained
    further, or another revision of the base, differs everywhere; a damaged file in few
    places.
    """

    code = "CK601"
    name = "differs-from-base"
    severity = "error"
    since = "0.1"
    needs = ("headers", "hashes", "base")
    kind = "differs"
    message = "unquantized tensors that are not base's: {count}"

    def expected(self, pair: Pair) -> str:
        return "the values of the base"

    def actual(self, pair: Pair) -> str:
        return "other values"
