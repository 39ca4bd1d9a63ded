"""The value scan against numpy's and ml_dtypes' own idea of what is finite."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdiff.analysis.hashing.scanning import flaws_in, is_clean, merged, scan_for
from ckptdiff.records.digests import Flaws

FLOATS = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}


def scan(name: str, dtype: str):  # type: ignore[no-untyped-def]
    found = scan_for(name, dtype)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d not in ("F32", "F64")])
@pytest.mark.parametrize("name", ["a.weight", "a.weight_scale"])
def test_every_code_of_one_and_two_bytes(dtype: str, name: str) -> None:
    kind = np.dtype(FLOATS[dtype])
    codes = np.arange(256**kind.itemsize).astype(f"<u{kind.itemsize}")
    values = codes.view(kind).astype(np.float64)
    for code, value in zip(codes, values, strict=True):
        nonfinite = not np.isfinite(value)
        nonpositive = not nonfinite and value <= 0 and name.endswith("scale")
        data = code.tobytes()
        assert is_clean(data, scan(name, dtype)) is not (nonfinite or nonpositive)
        found = flaws_in(data, scan(name, dtype))
        assert (found.nonfinite, found.nonpositive) == (int(nonfinite), int(nonpositive))


@pytest.mark.parametrize("dtype", ["F32", "F64"])
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_floats(dtype: str, values: list[float]) -> None:
    array = np.array(values, FLOATS[dtype])
    for name in ("a.bias", "a.input_scale"):
        nonfinite = ~np.isfinite(array)
        nonpositive = ~nonfinite & (array <= 0) & name.endswith("scale")
        found = flaws_in(array.tobytes(), scan(name, dtype))
        assert found.nonfinite == nonfinite.sum()
        assert found.nonpositive == nonpositive.sum()
        assert found.nonfinite_at == (nonfinite.argmax() if nonfinite.any() else None)
        assert found.nonpositive_at == (nonpositive.argmax() if nonpositive.any() else None)
        assert is_clean(array.tobytes(), scan(name, dtype)) is (found == Flaws())


def test_a_block_scale_in_u8_is_an_exponent() -> None:
    """Byte 0 is 2^-127 and fine, 255 alone is NaN."""
    exponents = scan("a.weight_scale", "U8")
    assert is_clean(bytes(range(255)), exponents)
    assert flaws_in(b"\x00\xff\xff", exponents) == Flaws(nonfinite=2, nonfinite_at=1)


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL", "F4"])
def test_integers_are_not_looked_at(dtype: str) -> None:
    assert scan_for("a.weight", dtype) is None


def test_nothing_is_clean() -> None:
    assert is_clean(b"", scan("a.weight", "BF16"))
    assert flaws_in(b"", scan("a.weight", "BF16")) == Flaws()


def test_parts_of_one_tensor_are_added_up() -> None:
    array = np.array([1, np.nan, 2, 0, np.inf, -1], "<f4")
    whole = scan("a.weight_scale", "F32")
    parts = [flaws_in(array[:3].tobytes(), whole), flaws_in(array[3:].tobytes(), whole, first=3)]
    assert merged(merged(None, parts[0]), parts[1]) == flaws_in(array.tobytes(), whole)
    assert flaws_in(array.tobytes(), whole) == Flaws(2, 1, 2, 3)
