"""Stored codes: which are at their extreme, and how many values lie between two."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ckptdiff.analysis.codes import CodeSums, at_their_extreme, code_sums
from ckptdiff.records.layout import LayoutName


@pytest.mark.parametrize(
    ("layout", "stored", "wanted"),
    [
        ("fp8", [0x7E, 0xFE, 0x7D, 0x7F, 0], 2),
        ("int8", [127, 128, 129, 126, 130], 3),
        ("nvfp4", [0x77, 0xF7, 0x07, 0x70, 0x66, 0x0F, 0x08], 7),
        ("mxfp4", [0xFF, 0x00], 2),
        ("int4", [0x77, 0x88, 0x78, 0x07, 0x80, 0x99, 0xF0, 0x0F], 8),
    ],
)
def test_codes_at_their_extreme(layout: LayoutName, stored: list[int], wanted: int) -> None:
    assert at_their_extreme(layout, np.array(stored, np.uint8)) == wanted


def test_steps_between_all_codes_of_fp8() -> None:
    """The places of codes are the order of the values that ml_dtypes gives them."""
    codes = np.array([c for c in range(256) if c & 0x7F != 0x7F], np.uint8)
    values = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    ranks = np.searchsorted(np.unique(values), values)
    for code, rank in zip(codes, ranks, strict=True):
        one = np.array([code], np.uint8)
        for other in (0, 0x38, 0xFE):
            found = code_sums("fp8", "F8_E4M3", one, np.array([other], np.uint8), 0)
            assert found.max_steps == abs(rank - ranks[codes == other][0])


@pytest.mark.parametrize(
    ("layout", "dtype", "a", "b", "wanted"),
    [
        ("int8", "I8", np.array([-128, 5], "i1"), np.array([127, 5], "i1"), (2, 1, 255, 10)),
        ("int4", "U8", np.array([0x70], "u1"), np.array([0x80], "u1"), (2, 1, 15, 21)),
        ("nvfp4", "U8", np.array([0x07], "u1"), np.array([0x0F], "u1"), (2, 1, 14, 20)),
        (None, "BF16", np.array([0x3F80], "u2"), np.array([0x3F82], "u2"), (1, 1, 2, 10)),
        (None, "F32", np.array([1.0], "f4"), np.array([1.0], "f4"), (1, 0, 0, None)),
        (None, "F64", np.array([1.0]), np.array([-1.0]), (1, 1, 2 * 0x3FF0 << 48, 10)),
    ],
)  # fmt: skip
def test_steps_between_codes(
    layout: LayoutName | None,
    dtype: str,
    a: np.ndarray,
    b: np.ndarray,
    wanted: tuple[int, int, int, int | None],
) -> None:
    found = code_sums(layout, dtype, a, b, 10)
    assert (found.codes, found.changed, found.max_steps, found.first) == wanted


def test_code_sums_add_up() -> None:
    total = CodeSums()
    total.add(CodeSums(10, 2, 5, 7))
    total.add(CodeSums(10, 1, 9, 3))
    assert total == CodeSums(20, 3, 9, 3)
