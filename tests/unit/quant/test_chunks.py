"""Any way of cutting a weight into rows gives the same result, down to the last bit."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requantising import requantise, rows_of

from ckptdiff.quant.arrays import MisfitError, Rows, Scales, as_array
from ckptdiff.quant.dialects import ALL, Dialect
from ckptdiff.quant.registry import (
    CODINGS,
    ClosedForm,
    Unprovable,
    closed_form,
    dequantise,
    dequantised,
    requantised,
)
from ckptdiff.records.layout import LayoutName

LAYOUTS = tuple(CODINGS)
PROVABLE = tuple(x for x in LAYOUTS if isinstance(closed_form(x), ClosedForm))
GROUPS = {"nvfp4": 16, "nvfp4-32": 32, "mxfp8": 32, "mxfp4": 32}


def ceil(length: int, block: int) -> int:
    return -(-length // block)


def stored(
    layout: LayoutName, rows: int, columns: int, rng: np.random.Generator
) -> tuple[np.ndarray, Scales]:
    """Random codes and scales of a weight [rows, columns] (of twice the rows for INT4)."""
    coding = CODINGS[layout]
    codes = rng.integers(0, 256, (rows, columns // coding.columns)).astype(np.uint8)
    outputs = rows * coding.rows

    def floats(*shape: int) -> np.ndarray:
        return rng.uniform(1e-3, 1, shape).astype("f4")

    pqs = floats(columns)
    match layout:
        case "fp8":
            return codes, Scales(floats())
        case "fp8-channel":
            return codes, Scales(floats(outputs, 1))
        case "fp8-block":
            scale = floats(ceil(rows, 128), 1, ceil(columns, 128), 1)
            return codes, Scales(scale.reshape(()) if scale.size == 1 else scale)
        case "int8":
            return codes.view(np.int8), Scales(floats(outputs), None, pqs)
        case "int4" | "int4-fp8":
            return codes, Scales(floats(outputs, 2), floats(), pqs)
    groups = rng.integers(0, 256, (rows, ceil(columns, GROUPS[layout]))).astype(np.uint8)
    if layout.startswith("nvfp4"):
        return codes, Scales(groups, floats(), pqs)
    return codes, Scales(groups)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Bit for bit, but for the sign of NaN: that of a product of two depends on how many the
    processor multiplies at once."""
    one, other = (
        np.where(np.isnan(side), np.nan, side).astype(side.dtype)
        if side.dtype == np.float32
        else side
        for side in (left, right)
    )
    return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


sizes = st.tuples(st.integers(0, 300), st.sampled_from([0, 2, 16, 32, 48, 80, 128, 130, 256, 300]))
seeds = st.integers(0, 1 << 32)


@settings(deadline=None)
@given(st.sampled_from(LAYOUTS), sizes, seeds, st.lists(st.integers(0, 300)))
def test_any_split_of_the_rows_dequantises_alike(
    layout: LayoutName, size: tuple[int, int], seed: int, cuts: list[int]
) -> None:
    codes, scales = stored(layout, *size, np.random.default_rng(seed))
    whole = dequantise(layout, codes, scales)
    assert whole.dtype == np.float32
    assert whole.shape == (size[0] * CODINGS[layout].rows, size[1])
    at = sorted({0, size[0], *(cut for cut in cuts if cut < size[0])})
    parts = [dequantise(layout, codes[a:b], scales, a) for a, b in pairwise(at)]
    assert same(np.concatenate([whole[:0], *parts]), whole)


@settings(deadline=None)
@given(st.sampled_from(LAYOUTS), sizes, seeds, st.integers(1, 40000))
def test_a_weight_in_chunks_is_the_weight(
    layout: LayoutName, size: tuple[int, int], seed: int, elements: int
) -> None:
    codes, scales = stored(layout, *size, np.random.default_rng(seed))
    whole = dequantise(layout, codes, scales)
    out = np.full_like(whole, 7)
    for first, values in dequantised(layout, rows_of(codes, elements), scales):
        assert values.size <= max(elements, whole.shape[1] * CODINGS[layout].rows)
        out[first : first + len(values)] = values
    assert same(out, whole)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_know_where_they_are(layout: LayoutName) -> None:
    rows = CODINGS[layout].rows
    codes, scales = stored(layout, 200, 128, np.random.default_rng(5))
    whole = dequantise(layout, codes, scales)
    seen = 0
    for first, values in dequantised(layout, rows_of(codes, 1000), scales):
        assert first == seen and 0 < values.size <= 1024
        assert same(values, whole[first : first + len(values)])
        seen += len(values)
    assert seen == 200 * rows


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(PROVABLE),
    sizes,
    seeds,
    st.integers(1, 40000),
    st.sampled_from(ALL),
    st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e-39, 3e38]),
)
def test_any_chunks_of_the_base_requantise_alike(
    layout: LayoutName,
    size: tuple[int, int],
    seed: int,
    elements: int,
    dialect: Dialect,
    odd: float,
) -> None:
    rows, columns = size
    columns -= columns % GROUPS.get(layout, 1)  # ModelOpt refuses partial groups
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((rows, columns)).astype("f4")
    if base.size:
        base.flat[rng.integers(base.size)] = odd
    whole = requantise(layout, rows_of(base, 1 << 30), dialect)
    parts = requantise(layout, rows_of(base, elements), dialect)
    assert same(whole.scales.weight_scale, parts.scales.weight_scale)
    assert same(whole.codes, parts.codes)
    form = closed_form(layout)
    assert isinstance(form, ClosedForm)
    for first, codes in requantised(form, rows_of(base, elements), whole.scales, dialect):
        assert same(codes, whole.codes[first : first + len(codes)])
    assert dequantise(layout, whole.codes, whole.scales).shape == base.shape


def test_chunks_are_read_in_order_and_only_once() -> None:
    asked: list[tuple[int, int]] = []

    def read(first: int, stop: int) -> np.ndarray:
        asked.append((first, stop))
        return np.zeros((stop - first, 10), np.uint8)

    scales = Scales(np.float32(1).reshape(()))
    for _ in dequantised("fp8", Rows(7, 10, read, 30), scales):
        pass
    assert asked == [(0, 3), (3, 6), (6, 7)]


@pytest.mark.parametrize("layout", PROVABLE)
def test_an_all_zero_weight(layout: LayoutName) -> None:
    packed = requantise(layout, rows_of(np.zeros((4, 64), "f4")), Dialect("BF16", "cpu"))
    values = dequantise(layout, packed.codes, packed.scales)
    if layout == "fp8" or layout.startswith("nvfp4"):  # 0 / 0, stored as it comes
        assert np.isnan(values).all()
    else:
        assert (values == 0).all()
    if layout in ("int8", "fp8-channel", "fp8-block"):
        assert (packed.scales.weight_scale == 1).all()


@pytest.mark.parametrize("layout", PROVABLE)
def test_a_float32_host_of_a_bf16_base_is_a_bf16_host(layout: LayoutName) -> None:
    base = np.random.default_rng(2).standard_normal((64, 128)).astype(ml_dtypes.bfloat16)
    base[3] = 0
    base[4] *= 1e-37
    for device in ("cpu", "cuda"):
        packed = [requantise(layout, rows_of(base), Dialect(h, device)) for h in ("BF16", "F32")]  # type: ignore[arg-type]
        ours, other = packed
        assert same(ours.scales.weight_scale, other.scales.weight_scale)
        assert same(ours.codes, other.codes) == (layout != "fp8")


def test_what_has_no_closed_form_says_so() -> None:
    for layout in ("int4", "int4-fp8"):
        searched = closed_form(layout)  # type: ignore[arg-type]
        assert isinstance(searched, Unprovable) and "AWQ" in searched.reason
    smoothed = closed_form("int8", smoothed=True)
    assert isinstance(smoothed, Unprovable) and "smoothed" in smoothed.reason


@pytest.mark.parametrize(
    ("layout", "codes", "scales"),
    [
        ("fp8", (4, 8), Scales(np.ones(4, "f4"))),
        ("fp8-channel", (4, 8), Scales(np.ones(3, "f4"))),
        ("fp8-channel", (4, 8), Scales(np.ones((), "f4"))),
        ("fp8-channel", (4, 8), Scales(np.ones((1, 4), "f4"))),
        ("fp8-block", (200, 8), Scales(np.ones((), "f4"))),
        ("fp8-block", (200, 8), Scales(np.ones((2, 2, 1, 1), "f4"))),
        ("fp8-block", (300, 8), Scales(np.ones((2, 1, 1, 1), "f4"))),
        ("fp8-block", (200, 200), Scales(np.ones((2, 1, 1, 1), "f4"))),
        ("int8", (4, 8), Scales(np.ones(4, "f4"), None, np.ones(7, "f4"))),
        ("int4", (4, 8), Scales(np.ones((7, 2), "f4"))),
        ("int4", (4, 8), Scales(np.ones((8, 3), "f4"))),
        ("int4", (4, 8), Scales(np.ones((8, 0), "f4"))),
        ("nvfp4", (4, 8), Scales(np.ones((4, 1), "u1"))),
        ("nvfp4", (4, 8), Scales(np.ones((4, 2), "u1"), np.ones((), "f4"))),
        ("mxfp8", (4, 64), Scales(np.ones((4, 1), "u1"))),
        ("mxfp4", (4, 64), Scales(np.ones((4,), "u1"))),
    ],
)
def test_scales_that_do_not_fit_are_refused(
    layout: LayoutName, codes: tuple[int, int], scales: Scales
) -> None:
    with pytest.raises(MisfitError):
        dequantise(layout, np.zeros(codes, np.uint8), scales)


def test_odd_columns_cannot_be_packed() -> None:
    for layout in ("nvfp4", "mxfp4"):
        with pytest.raises(MisfitError, match="two a byte"):
            requantise(layout, rows_of(np.ones((2, 33), "f4")), ALL[0])  # type: ignore[arg-type]


def test_bytes_become_arrays() -> None:
    assert as_array(b"\x80\x3f\x00\x40", "BF16", (2,)).astype("f4").tolist() == [1, 2]
    assert as_array(b"\x7f\xff", "F8_E4M3", (1, 2)).dtype == np.uint8
    with pytest.raises(KeyError):
        as_array(b"", "F6_E2M3", (0,))
    with pytest.raises(ValueError, match="reshape"):
        as_array(b"\0\0", "U8", (3,))
