"""What AWQ folded into the norm in front of a weight, read off the norm's own weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ckptdiff.quant.arrays import F32

# From which size on a dtype has all its digits; BF16 and F64 are taken for float32.
_LEAST: Mapping[str, float] = {"F16": 2.0**-14, "F32": 2.0**-126}
# A norm that is this much above that is not folded away to zero: no factor is as small.
_PLENTY = 2.0**10


def fold(mine: F32, theirs: F32, dtypes: tuple[str, str], shift: int = 0) -> F32:
    """The factor [I] that an export multiplied a norm's weight [I] by: `mine` over `theirs`, the
    base's, as they are stored in `dtypes`. The columns behind it got the inverse.

    `shift` is 1 for norms that multiply by one more than their weight (Gemma's). NaN, not known,
    where a dtype keeps fewer digits of either weight, or less is left of it than was rounded. A
    weight that became zero has the factor 0.
    """
    parts = (mine + np.float32(shift), theirs + np.float32(shift))
    least = [_LEAST.get(dtype, _LEAST["F32"]) for dtype in dtypes]
    with np.errstate(all="ignore"):
        few = [
            np.abs(part) < (np.abs(weight) / 2 if shift else size)
            for part, weight, size in zip(parts, (mine, theirs), least, strict=True)
        ]
        gone = (mine == 0) & (np.abs(theirs) >= least[1] * _PLENTY) if not shift else False
        unknown = (few[0] & ~np.asarray(gone)) | few[1]
        return np.where(unknown, np.float32(np.nan), parts[0] / parts[1])
