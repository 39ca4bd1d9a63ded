"""Difference statistics against float64 and long double, whatever the values are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from unittest.mock import Mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdiff.analysis.differing.difference import CHUNK, Sums, is_precise, statistics
from ckptdiff.analysis.differing.onepass import one_pass
from ckptdiff.records.delta import Statistics


def by_numpy(found: Sums, x: np.ndarray, y: np.ndarray, at: int = 0, sampled: bool = False) -> bool:
    """Whether float32 is good for a chunk, whose sums are added."""
    return found.take(x, y.copy(), at, None, sampled)


def by_numba(found: Sums, x: np.ndarray, y: np.ndarray, at: int = 0, sampled: bool = False) -> bool:
    compiled = one_pass()
    assert compiled is not None, "the tests need the extra `fast`"
    found.take_at_once(compiled, x, y, at, False, sampled)
    return True


def exactly(found: Sums, x: np.ndarray, y: np.ndarray, at: int = 0, sampled: bool = False) -> bool:
    found.take_exactly(x, y, at, None, sampled)
    return True


Route = Callable[..., bool]
quick = pytest.mark.parametrize("route", [by_numpy, by_numba])


def taken(x: np.ndarray, y: np.ndarray, pieces: int = 3, route: Route = by_numpy) -> Sums:
    """The sums of float32 arrays that arrive in pieces."""
    found, at = Sums(), 0
    for a, b in zip(np.array_split(x, pieces), np.array_split(y, pieces), strict=True):
        part = Sums()
        with np.errstate(all="ignore"):
            if not route(part, a, b, at):
                part = Sums()
                exactly(part, a, b, at)
        found.add(part)
        at += a.size
    return found


def numbers(x: np.ndarray, y: np.ndarray) -> Statistics:
    """What `diff` says without numba; with it, it says what float64 does."""
    found, exact, compiled = (taken(x, y, route=route) for route in (by_numpy, exactly, by_numba))
    assert is_precise(compiled) and is_precise(exact)
    equal(compiled, exact)
    return statistics(found if is_precise(found) else exact, x.shape, packed=False)


def equal(compiled: Sums, exact: Sums) -> None:
    """Sums that differ in the order of their summands only."""
    for field in fields(Sums):
        one, other = getattr(compiled, field.name), getattr(exact, field.name)
        # What cancels in xy or xd is as large as the lengths are.
        room = 1e-13 * math.sqrt(exact.xx * max(exact.yy, exact.dd)) if field.name[0] == "x" else 0
        assert one == pytest.approx(other, rel=1e-12, abs=room), field.name


def oracle(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The formulas as a textbook has them, in long double."""
    finite = np.isfinite(x) & np.isfinite(y)
    a, b = x[finite].astype(np.longdouble), y[finite].astype(np.longdouble)
    d = b - a
    norms = np.sqrt(a @ a), np.sqrt(b @ b), np.sqrt(d @ d)
    cosine = 1 - (a @ b) / (norms[0] * norms[1]) if norms[0] * norms[1] else math.nan
    return {
        "max_abs": float(np.abs(d).max(initial=0)),
        "mean_abs": float(np.abs(d).mean()) if d.size else math.nan,
        "rms": float(np.sqrt((d * d).mean())) if d.size else math.nan,
        "rel_error": float(norms[2] / norms[0]) if norms[0] else math.nan,
        "sqnr_db": float(20 * np.log10(norms[0] / norms[2])) if norms[2] else math.inf,
        "cosine_distance": float(cosine),
    }


def near(x: np.ndarray, y: np.ndarray, rel: float = 1e-5) -> Statistics:
    found = numbers(x, y)
    for name, wanted in oracle(x, y).items():
        if not math.isnan(wanted):
            absolute = 1e-12 if name == "cosine_distance" else 1e-300
            got = float(getattr(found, name))
            assert got == pytest.approx(wanted, rel=rel, abs=absolute), name
    return found


@pytest.mark.parametrize("size", [1, 2, 100, 4096, 100_001])
@pytest.mark.parametrize("noise", [1e-3, 1e-1, 3.0])
def test_ordinary_weights(size: int, noise: float) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(size).astype(np.float32) * np.float32(0.02)
    y = (x + noise * rng.standard_normal(size) * 0.02).astype(np.float32)
    near(x, y)


@pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize("gain", [1.0, 2.0, 0.996])
def test_cosine_of_nearly_parallel_vectors(distance: float, gain: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(1 << 18).astype(np.float32)
    y = (gain * (x + rng.standard_normal(x.size) * math.sqrt(2 * distance))).astype(np.float32)
    exact = oracle(x, y)["cosine_distance"]
    assert exact == pytest.approx(distance, rel=0.05)
    assert float(numbers(x, y).cosine_distance or 0) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e-10, 1e10, 1e18, 1e30, 1e37])
def test_neither_overflow_nor_underflow(scale: float) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(5000) * scale).astype(np.float32)
    y = (x.astype(np.float64) * (1 + 0.1 * rng.standard_normal(x.size))).astype(np.float32)
    near(x, y, rel=1e-4)


@pytest.mark.parametrize("gap", [1e-13, 1e-20, 1e-30])
def test_small_errors_of_ordinary_values(gap: float) -> None:
    x = np.zeros(1000, np.float32)
    x[0], x[1:] = 1, np.linspace(gap, 2 * gap, 999)
    y = x.copy()
    y[1:] *= 2
    near(x, y)


@pytest.mark.parametrize("far", [1e-6, 1e-10, 1e-20, 1e-36])
@pytest.mark.parametrize("angle", [0.0, 0.01, 1.0])
def test_cosine_of_vectors_whose_lengths_are_far_apart(far: float, angle: float) -> None:
    rng = np.random.default_rng(4)
    y = rng.standard_normal(20_000)
    x = ((y + angle * rng.standard_normal(y.size)) * far).astype(np.float32)
    for one, other in ((x, y.astype(np.float32)), (y.astype(np.float32), x)):
        wanted = oracle(one, other)["cosine_distance"]
        assert float(numbers(one, other).cosine_distance or 0) == pytest.approx(
            wanted, rel=1e-6, abs=1e-12
        )


def test_cosine_of_what_overflows_is_no_number() -> None:
    x, y = np.array([1e200, 1.0]), np.array([-1e200, 1.0])
    found = Sums()
    with np.errstate(all="ignore"):
        found.take_exactly(x, y, 0)
    assert statistics(found, x.shape, packed=False).cosine_distance == "NaN"


def test_vectors_that_point_away() -> None:
    x = np.linspace(1, 2, 5000, dtype=np.float32)
    assert near(x, -x).cosine_distance == pytest.approx(2)
    zero = numbers(x, np.zeros_like(x))
    assert (zero.rel_error, zero.sqnr_db, zero.cosine_distance) == (1.0, 0.0, None)
    other = numbers(np.zeros_like(x), x)
    assert (other.rel_error, other.sqnr_db) == ("Infinity", "-Infinity")


def test_zeros_in_the_place_of_a_weight_take_one_pass() -> None:
    """Nothing is nearly parallel to zeros, and float32 loses none of them."""
    y = np.linspace(1, 2, 5000, dtype=np.float32)
    found = Sums()
    assert found.take(np.zeros_like(y), y.copy(), 0) and is_precise(found)
    assert (found.changed, found.top) == (5000, 2.0)
    # Numbers whose squares vanish in float32 are none.
    assert not Sums().take(np.full(5000, 1e-30, np.float32), y.copy(), 0)


@pytest.mark.parametrize(("large", "sqnr"), [(1e150, -5900.0), (1e200, "-Infinity")])
def test_differences_whose_squares_overflow(large: float, sqnr: float | str) -> None:
    x, y = np.full(100, 1e-145), np.full(100, large)
    found, back = Sums(), Sums()
    with np.errstate(all="ignore"):
        found.take_exactly(x, y, 0)
        back.take_exactly(y, x, 0)
    numbers = statistics(found, x.shape, packed=False)
    assert numbers.sqnr_db == (sqnr if isinstance(sqnr, str) else pytest.approx(sqnr))
    assert statistics(back, x.shape, packed=False).max_abs == large


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    x = np.linspace(1, 2, 5000, dtype=np.float32)
    y = x * np.float32(1.01)
    clean = numbers(np.delete(x, [7, 8, 4000]), np.delete(y, [7, 8, 4000]))
    x[7], y[8], x[4000], y[4000] = np.inf, np.nan, np.nan, np.nan
    found = numbers(x, y)
    assert found.nonfinite == 3
    for name in ("max_abs", "mean_abs", "rms", "rel_error", "cosine_distance"):
        assert getattr(found, name) == pytest.approx(getattr(clean, name), rel=1e-5)
    # NaN on both sides is no change, on one side it is.
    assert found.changed_share == 4999 / 5000


def test_nan_on_one_side_alone_is_a_change() -> None:
    x = np.ones(100, np.float32)
    y = x.copy()
    y[42] = np.nan
    found = numbers(x, y)
    assert (found.changed_share, found.nonfinite, found.first_difference) == (0.01, 1, (42,))
    assert (found.max_abs, found.rel_error, found.sqnr_db) == (0.0, 0.0, "Infinity")


def test_the_first_difference_is_an_index_of_the_tensor() -> None:
    x = np.ones((40, 50), np.float32)
    y = x.copy()
    y[3, 7] = y[20, 1] = 2
    sums = taken(x.reshape(-1), y.reshape(-1), pieces=7)
    assert statistics(sums, (40, 50), packed=False).first_difference == (3, 7)
    assert sums.changed == 2


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=40),
    st.integers(1, 5),
)
def test_any_floats(pairs: list[tuple[float, float]], pieces: int) -> None:
    """Elements are never lost, sums never NaN, the order of pieces never counts."""
    x, y = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    found = taken(x, y, pieces)
    with np.errstate(all="ignore"):
        equal(taken(x, y, pieces, by_numba), taken(x, y, pieces, exactly))
    finite = np.isfinite(x) & np.isfinite(y)
    assert found.elements == x.size and found.nonfinite == x.size - finite.sum()
    assert found.changed == (~((x == y) | (np.isnan(x) & np.isnan(y)))).sum()
    assert math.isfinite(found.dd) and math.isfinite(found.xx)
    wide = np.abs(y[finite].astype(np.float64) - x[finite].astype(np.float64))
    assert found.top == pytest.approx(wide.max(initial=0), rel=1e-6)
    assert sum(found.histogram().values()) == pytest.approx((wide > 0).sum())


def test_the_histogram_counts_decades() -> None:
    x = np.zeros(2000, np.float32)
    y = np.repeat(np.array([0, 1e-3, 9.99e-4, 5.0], np.float32), 500)
    found = taken(x, y, route=exactly)
    assert found.histogram() == {-3: 500, -4: 500, 0: 500}


@quick
def test_the_histogram_of_a_large_tensor_is_near_the_truth(route: Route) -> None:
    rng = np.random.default_rng(3)
    found = Sums()
    errors = []
    for _ in range(20):
        x = rng.standard_normal(CHUNK).astype(np.float32)
        y = x + (rng.standard_normal(x.size) * 0.01).astype(np.float32)
        errors.append(np.abs(y - x))
        assert route(found, x, y, sampled=True)
    every = np.concatenate(errors)
    histogram = found.histogram()
    assert sum(histogram.values()) == pytest.approx((every > 0).sum(), rel=1e-3)
    for decade in (-2, -3, -4):
        wanted = ((every >= 10.0**decade) & (every < 10.0 ** (decade + 1))).sum()
        assert histogram[decade] == pytest.approx(wanted, rel=0.1)


@quick
@pytest.mark.parametrize("changed", [1100, 1500, 5000, 60_000])
def test_the_histogram_of_few_changes_in_a_large_chunk(changed: int, route: Route) -> None:
    """They are looked at themselves, however few they are among all elements."""
    rng = np.random.default_rng(changed)
    x = rng.standard_normal(CHUNK).astype(np.float32)
    y = x.copy()
    at = rng.choice(x.size, changed, replace=False)
    y[at] += np.where(np.arange(changed) % 4, np.float32(0.03), np.float32(20))
    found = Sums()
    assert route(found, x, y, sampled=True)
    assert found.histogram() == {
        -2: pytest.approx(0.75 * changed, rel=0.1),
        1: pytest.approx(0.25 * changed, rel=0.1),
    }


@quick
@pytest.mark.parametrize("columns", [256, 384, 512, 1024, 11008, 18944])
@pytest.mark.parametrize("elements", [70_000, 98_304, 131_072, 250_000])
def test_the_histogram_of_errors_in_few_columns(elements: int, columns: int, route: Route) -> None:
    """Which are not taken for all, nor for none: a thousand samples see eleven of them."""
    bad = np.arange(elements) % columns % 96 == 0
    x = np.ones(elements, np.float32)
    y = x + np.where(bad, np.float32(1), np.float32(1e-3))
    found = Sums()
    assert route(found, x, y, sampled=True)
    assert found.histogram()[0] == pytest.approx(np.count_nonzero(bad), rel=0.75)


@quick
def test_the_histogram_has_the_largest_error_however_rare(route: Route) -> None:
    x = np.ones(CHUNK, np.float32)
    y = x + np.float32(0.03)
    y[1] = 500
    found = Sums()
    assert route(found, x, y, sampled=True)
    histogram = found.histogram()
    assert set(histogram) == {-2, 2} and histogram[2] == 1


def test_changes_that_make_no_error_are_in_no_decade() -> None:
    x = np.zeros(CHUNK, np.float32)
    y = -x
    y[::250] = 5
    found = Sums()
    differs = x.view(np.uint32) != y.view(np.uint32)
    found.take_exactly(x, y, 0, differs, sampled=True)
    assert found.changed == x.size
    assert found.histogram() == {0: pytest.approx(x.size / 250, rel=0.5)}


@pytest.mark.parametrize("size", [1, 7, 4095, 100_003])
def test_bits_count_where_they_differ_and_values_do_not(size: int) -> None:
    """Zeros of either sign and NaN of two kinds, among equal and other values."""
    kinds = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, 1.5], np.float32)
    rng = np.random.default_rng(size)
    x, y = rng.choice(kinds, (2, size))
    compiled = one_pass()
    assert compiled is not None
    for bitwise in (False, True):
        found, exact = Sums(), Sums()
        differs = x.view(np.uint32) != y.view(np.uint32) if bitwise else None
        with np.errstate(all="ignore"):
            found.take_at_once(compiled, x, y, 11, bitwise)
            exact.take_exactly(x, y, 11, differs)
        equal(found, exact)


@pytest.mark.parametrize("size", [1, 7, 4095, 100_003])
def test_bfloat16_is_taken_as_it_is_stored(size: int) -> None:
    """All bit patterns there are, and in turn those that are equal and those that are not."""
    rng = np.random.default_rng(size)
    x, y = rng.integers(0, 1 << 16, (2, size), np.uint16)
    y[::3] = x[::3]
    x, y = x.view(ml_dtypes.bfloat16), y.view(ml_dtypes.bfloat16)
    compiled = one_pass()
    assert compiled is not None
    wide = x.astype(np.float32), y.astype(np.float32)
    for sampled in (False, True):
        both, one, by_bits, by_values = Sums(), Sums(), Sums(), Sums()
        with np.errstate(all="ignore"):
            both.take_at_once(compiled, x, y, 11, True, sampled)
            one.take_at_once(compiled, x, wide[1], 11, False, sampled)
            by_bits.take_exactly(*wide, 11, x.view(np.uint16) != y.view(np.uint16), sampled)
            by_values.take_exactly(*wide, 11, None, sampled)
        equal(both, by_bits)
        equal(one, by_values)


@pytest.mark.parametrize(
    ("name", "value"), [("njit", Mock(side_effect=EOFError)), ("config", Mock())]
)
def test_without_a_working_numba_there_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """A cache that a crash left empty, as numba tells of it; and numba switched off."""
    monkeypatch.setattr(f"numba.{name}", value)
    assert one_pass.__wrapped__() is None


def test_the_first_difference_is_that_of_the_first_chunk() -> None:
    x = np.zeros(3 * CHUNK, np.float32)
    y = x.copy()
    y[CHUNK + 5 :: 3] = 1
    compiled = one_pass()
    assert compiled is not None
    found = Sums()
    for at in range(0, x.size, CHUNK):
        found.take_at_once(compiled, x[at:][:CHUNK], y[at:][:CHUNK], at, sampled=True)
    assert (found.first, found.changed) == (CHUNK + 5, y.sum())
    assert found.histogram() == {0: pytest.approx(y.sum())}


def test_equal_chunks_count_as_the_reference_alone() -> None:
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    x[5] = np.inf
    found = Sums()
    found.unchanged(x)
    assert (found.elements, found.changed, found.nonfinite, found.dd) == (1000, 0, 1, 0)
    assert found.xx == pytest.approx(float((np.delete(x, 5).astype(np.float64) ** 2).sum()))
