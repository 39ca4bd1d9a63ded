"""What recomputing a quantized weight from its base showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ckptdiff.records.layout import LayoutName

# "proven": every code and scale is what a closed form gives. "codes": the scales are right and
# codes are not. "scale": a stored scale is not what the base gives, whatever the codes are.
# "searched": no closed form says what the weight must be (AWQ, SmoothQuant), so that only its
# distance from the base is known. "unknown": it could not be looked at; `reason` says why.
ProofStatus = Literal["proven", "codes", "scale", "searched", "unknown"]


@dataclass(frozen=True, slots=True)
class Proof:
    """One quantized weight [O, I] against its base.

    `scale_dialect` and `code_dialect` ("BF16 cpu") are the forms that hold, None where none
    does. `wrong` of `codes` stored weights differ from the closest form, the first at index
    `first`. `sqnr_db` and `saturated` (the share of codes at their extreme) are measured for
    "searched" weights and for those that differ; `zero`: every weight is zero, and base's is
    not. `gain` is the relative error that a rounded scale on CUDA put on the whole weight.
    """

    key: str
    module: str
    weight: str
    shard: str
    layout: LayoutName | None
    status: ProofStatus
    scale_dialect: str | None = None
    code_dialect: str | None = None
    scale: str | None = None  # the tensor name of the scale that is wrong
    wrong: int = 0
    codes: int = 0
    first: tuple[int, int] | None = None
    expected: str | None = None
    actual: str | None = None
    sqnr_db: float | None = None
    saturated: float | None = None
    zero: bool = False
    gain: float | None = None
    reason: str | None = None
