"""Factors that are read off norms."""

from __future__ import annotations

import numpy as np

from ckptdiff.analysis.proving.folding import fold


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_factor_is_what_a_norm_was_multiplied_by() -> None:
    theirs, factor = floats(0.5, -2, 3), floats(2, 0.25, 1)
    np.testing.assert_array_equal(fold(theirs * factor, theirs, ("F32", "F32")), factor)


def test_of_a_norm_that_multiplies_by_one_more() -> None:
    theirs, factor = floats(0.5, -0.25, 3), floats(2, 0.5, 1)
    mine = (theirs + 1) * factor - 1
    np.testing.assert_allclose(fold(mine, theirs, ("F32", "F32"), 1), factor, rtol=1e-6)


def test_little_of_a_norm_says_nothing() -> None:
    tiny = 2.0**-15  # F16 has not all its digits there
    found = fold(floats(tiny, 1, 0), floats(1, tiny, tiny), ("F16", "F16"))
    assert np.isnan(found).all()
    assert not np.isnan(fold(floats(tiny, 1), floats(1, tiny), ("BF16", "BF16"))).any()
    # 1 - 0.99 in BF16: what was rounded is a good part of what is left.
    assert np.isnan(fold(floats(-0.99, 0.5), floats(0.5, -0.99), ("BF16", "BF16"), 1)).all()


def test_a_norm_that_became_zero_has_a_factor() -> None:
    np.testing.assert_array_equal(fold(floats(0, 0), floats(1, -3), ("F16", "F16")), [0, 0])
