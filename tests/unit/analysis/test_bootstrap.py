"""Bootstrap intervals against loops in plain Python, and against what is known of means."""

from __future__ import annotations

import numpy as np
import pytest

from ckptdiff.analysis import bootstrap
from ckptdiff.analysis.bootstrap import DRAWS, interval, means, rising

VALUES = np.random.default_rng(3).exponential(1e-3, 64)


def test_a_draw_is_the_mean_of_values_with_replacement() -> None:
    values = VALUES.tolist()
    numbers = np.random.default_rng(0).integers(0, 64, (DRAWS, 64))
    wanted = [sum(values[n] for n in row) / 64 for row in numbers.tolist()]
    np.testing.assert_allclose(means(values), wanted, rtol=1e-12)
    mean, lo, hi = interval(values)
    ordered = sorted(wanted)
    assert mean == pytest.approx(sum(values) / 64, rel=1e-12)
    assert ordered[45] <= lo <= ordered[55] and ordered[1945] <= hi <= ordered[1955]


def test_parts_of_any_size_give_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = means(VALUES.tolist())
    monkeypatch.setattr(bootstrap, "_ELEMENTS", 1000)
    np.testing.assert_array_equal(means(VALUES.tolist()), whole)


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    _, lo, hi = interval(VALUES.tolist())
    assert hi - lo == pytest.approx(2 * 1.96 * VALUES.std() / 8, rel=0.15)


def test_one_value_has_an_interval_of_no_width() -> None:
    assert interval([0.25]) == (0.25, 0.25, 0.25)


def test_rising_counts_draws_in_which_all_means_rise() -> None:
    low, high = VALUES, VALUES + 1e-9
    assert rising([low.tolist(), high.tolist()]) == 1.0
    assert rising([high.tolist(), low.tolist()]) == 0.0
    other = np.random.default_rng(4).permutation(VALUES)
    share = rising([low.tolist(), other.tolist()])
    assert 0.2 < share < 0.8
