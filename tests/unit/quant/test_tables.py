"""Code tables against ml_dtypes, whose own casts are the oracle."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdiff.quant import tables

BYTES = np.arange(256, dtype=np.uint8)
BF16 = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
F16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
RANDOM = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20).astype(np.uint32).view(np.float32)


def borders() -> np.ndarray:
    """Every code, every half-way point between two, and the floats beside each of those."""
    exact = []
    for kind, bits in ((ml_dtypes.float8_e4m3fn, 8), (ml_dtypes.float4_e2m1fn, 4)):
        values = np.arange(1 << bits, dtype=np.uint8).view(kind).astype(np.float32)
        values = np.unique(values[np.isfinite(values)])
        exact += [values, (values[1:] + values[:-1]) / 2]
    exact.append(np.array([464, -464, 480, 5, -5, 1e30, np.inf, -np.inf, np.nan], np.float32))
    at = np.concatenate(exact)
    return np.concatenate([at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]).astype("f4")


SAMPLES = {"bf16": BF16, "f16": F16, "random": RANDOM, "borders": borders()}


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def test_codes_are_worth_what_ml_dtypes_says() -> None:
    assert same(tables.E4M3, BYTES.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
    assert np.isnan(tables.E8M0[255])
    assert same(tables.E8M0[:255], np.ldexp(np.float32(1), np.arange(255) - 127))
    for column, nibbles in enumerate((BYTES & 15, BYTES >> 4)):
        wanted = nibbles.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
        assert same(np.ascontiguousarray(tables.E2M1_PAIRS[:, column]), wanted)
    assert same(tables.decode_e2m1(BYTES[None]), tables.E2M1_PAIRS.reshape(1, -1))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("values", SAMPLES.values(), ids=SAMPLES)
def test_e4m3_codes_are_those_of_a_cast(values: np.ndarray) -> None:
    wanted = values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    got = tables.encode_e4m3(values)
    nan = np.isnan(values)
    assert same(got[~nan], wanted[~nan])
    assert (got[nan] & 0x7F == 0x7F).all()


@pytest.mark.parametrize("values", SAMPLES.values(), ids=SAMPLES)
def test_e2m1_codes_are_those_of_a_cast(values: np.ndarray) -> None:
    nan = np.isnan(values)
    got = tables.encode_e2m1(values)
    wanted = values[~nan].astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 15
    # A zero has no sign here, a small number that becomes zero does.
    wanted[values[~nan] == 0] = 0
    assert same(got[~nan], wanted)
    assert (got[nan] == 7).all()


@pytest.mark.parametrize("values", SAMPLES.values(), ids=SAMPLES)
def test_mxfp4_ties_go_down_and_zero_is_eight(values: np.ndarray) -> None:
    values = values[~np.isnan(values)]
    got = tables.encode_e2m1_down(values)
    size = np.abs(values).astype(np.float64)
    magnitude = sum((size > border).astype(np.uint8) for border in (0.25, 0.75, 1.25, 1.75))
    magnitude += sum((size > border).astype(np.uint8) for border in (2.5, 3.5, 5))
    assert same(got, magnitude + np.where(values <= 0, 8, 0).astype(np.uint8))


@given(st.lists(st.floats(width=32), min_size=1))
def test_any_float_becomes_the_code_of_a_cast(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    with np.errstate(invalid="ignore"):
        wanted = values.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(tables.decode(tables.E4M3, tables.encode_e4m3(values)), wanted)


def test_tables_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        tables.E4M3[0] = 1
