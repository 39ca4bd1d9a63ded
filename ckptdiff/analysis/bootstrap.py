"""Bootstrap intervals over prompts: how much of a difference is the choice of the prompts.

Every scheme is resampled with the same draws, so that two schemes are compared prompt by prompt.
The draws are seeded: the same numbers give the same intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
_SEED = 0
_ELEMENTS = 1 << 22


def means(values: Sequence[float]) -> NDArray[np.float64]:
    """The mean of each of `DRAWS` resamples of `values`, float64 [DRAWS]."""
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng(_SEED)
    step = max(1, _ELEMENTS // len(array))
    parts = [
        array[rng.integers(0, len(array), (min(step, DRAWS - first), len(array)))].mean(1)
        for first in range(0, DRAWS, step)
    ]
    return np.concatenate(parts)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, lower end, upper end) with 95 % of the resampled means between the ends."""
    lo, hi = np.percentile(means(values), (2.5, 97.5))
    return float(np.mean(values)), float(lo), float(hi)


def rising(rows: Sequence[Sequence[float]]) -> float:
    """The share of draws in which the means of the rows rise strictly from each to the next."""
    resampled = np.stack([means(row) for row in rows])
    return float((np.diff(resampled, axis=0) > 0).all(0).mean())
