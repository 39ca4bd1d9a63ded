"""Faults of weights whose scales were searched, in weights that are packed by formulas here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import pytest
from requantising import rows_of

from ckptdiff.analysis.proving.faults import Fault, StaleScales, Strays
from ckptdiff.analysis.proving.nearness import measure
from ckptdiff.quant.arrays import Scales
from ckptdiff.records.layout import LayoutName

ROWS, COLUMNS = 48, 384
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
BORDERS = (E2M1[1:] + E2M1[:-1]) / 2
WIDTHS = {"int4": 128, "int4-fp8": 128, "int8": COLUMNS, "nvfp4": 16}
SEARCHED: tuple[LayoutName, ...] = ("int4", "int4-fp8", "int8", "nvfp4")
ROUNDINGS = 7  # facts of ModelOpt 0.47, listed in analysis.proving.leeway


def bf16(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype(ml_dtypes.bfloat16).astype(np.float64)


@dataclass(frozen=True)
class Made:
    """A weight as it was packed: `smoothed` is base over `fold`, in multiples of its scale."""

    layout: LayoutName
    base: np.ndarray
    fold: np.ndarray
    smoothed: np.ndarray
    codes: np.ndarray
    scales: Scales

    def fault(self, scales: Scales | None = None, **changed: object) -> Fault | None:
        codes = changed.pop("codes", self.codes)
        assert isinstance(codes, np.ndarray)
        options = {"folds": [self.fold], **changed}
        stored = rows_of(packed(self.layout, codes), elements=5 * COLUMNS)
        base = rows_of(self.base.astype(ml_dtypes.bfloat16), elements=5 * COLUMNS)
        return measure(self.layout, stored, scales or self.scales, base, **options).fault  # type: ignore[arg-type]


def packed(layout: str, codes: np.ndarray) -> np.ndarray:
    if layout == "int8":
        return codes.astype(np.int8)
    nibbles = codes.astype(np.int64).astype(np.uint8) & 15
    if layout == "nvfp4":
        return nibbles[:, 0::2] | nibbles[:, 1::2] << 4
    return nibbles[0::2] | nibbles[1::2] << 4


def spread(layout: str, scales: Scales) -> np.ndarray:
    scale = scales.weight_scale
    if scale.dtype == np.uint8:
        assert scales.weight_scale_2 is not None
        scale = scale.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * scales.weight_scale_2
    return np.repeat(scale.reshape(ROWS, -1), WIDTHS[layout], axis=1)


def make(layout: LayoutName, seed: int = 0, off: float = 0, gain: object = 1.0) -> Made:
    """`off`: how many times a unit roundoff what is rounded is away from base over fold, up or
    down; `gain` a factor on it that nothing tells."""
    rng = np.random.default_rng(seed)
    base = bf16(rng.normal(0, 0.03, (ROWS, COLUMNS)))
    fold = bf16(np.exp(rng.normal(0, 0.7, COLUMNS))).astype(np.float32)
    away = np.where(rng.random(base.shape) < 0.5, 1 + 2.0**-9, 1 - 2.0**-9) ** off
    smoothed = base / fold * away * np.asarray(gain)
    blocks = np.abs(smoothed).reshape(ROWS, -1, WIDTHS[layout]).max(axis=2)
    if layout == "nvfp4":
        whole = np.float32(blocks.max() / 2688)
        scale = (blocks / (6 * whole)).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)
        scales = Scales(scale.view(np.uint8), np.asarray(whole))
        ratio = smoothed / spread(layout, scales)
        codes = np.searchsorted(BORDERS, np.abs(ratio)) + 8 * (ratio < 0)
    else:
        most = 127 if layout == "int8" else 7
        scale = (blocks / most).astype(np.float32)
        scales = Scales(scale[:, 0] if layout == "int8" else scale)
        ratio = smoothed / spread(layout, scales)
        codes = np.rint(ratio)
    return Made(layout, base, fold, ratio, codes.astype(np.int64), scales)


@pytest.mark.parametrize("layout", SEARCHED)
@pytest.mark.parametrize("own", [True, False])
def test_no_exporter_s_roundings_are_a_fault(layout: LayoutName, own: bool) -> None:
    """Though all of them went the same way, which is the worst that they can do."""
    for seed in range(4):
        made = make(layout, seed, off=ROUNDINGS)
        if own:
            scales = replace(made.scales, pre_quant_scale=made.fold)
            assert made.fault(scales, folds=()) is None
        else:
            assert made.fault() is None
            other = make(layout, 99).fold
            assert made.fault(folds=[other, made.fold]) is None


@pytest.mark.parametrize("layout", SEARCHED)
def test_beyond_their_reach_is_a_fault(layout: LayoutName) -> None:
    """Where the factor lies beside the weight, so that it is known."""
    made = make(layout, off=4 * ROUNDINGS)
    scales = replace(made.scales, pre_quant_scale=made.fold)
    assert isinstance(made.fault(scales, folds=()), Strays | StaleScales)


@pytest.mark.parametrize("layout", SEARCHED)
@pytest.mark.parametrize("own", [True, False])
def test_scales_of_another_weight(layout: LayoutName, own: bool) -> None:
    """Codes show what the scales must be, whichever factor norms suggest beside the right one."""
    made, other = make(layout, 1), make(layout, 2)
    right, wrong = made.scales.weight_scale, other.scales.weight_scale
    scales = replace(made.scales, weight_scale=wrong, pre_quant_scale=made.fold if own else None)
    folds = () if own else (other.fold, made.fold)
    found = made.fault(scales, folds=folds)
    assert isinstance(found, StaleScales)
    assert (found.suffix, found.total) == ("weight_scale", right.size)
    assert found.count > right.size / 2
    if layout == "nvfp4":
        right, wrong = (x.view(ml_dtypes.float8_e4m3fn).astype(np.float64) for x in (right, wrong))
    assert found.low <= right[found.first] <= found.high
    assert found.actual == pytest.approx(wrong[found.first])
    assert not found.low <= found.actual <= found.high


@pytest.mark.parametrize("layout", SEARCHED)
def test_one_scale(layout: LayoutName) -> None:
    made = make(layout, 3)
    wrong = made.scales.weight_scale.copy()
    at = (29,) if layout == "int8" else (29, 1)
    if layout == "nvfp4":
        wrong[at] += 4  # half an exponent
    else:
        wrong[at] *= np.float32(1.4)
    found = made.fault(replace(made.scales, weight_scale=wrong))
    assert isinstance(found, StaleScales) and (found.count, found.first) == (1, at)


def test_the_scale_of_the_whole() -> None:
    made = make("nvfp4", 4)
    right = made.scales.weight_scale_2
    assert right is not None
    found = made.fault(replace(made.scales, weight_scale_2=right * np.float32(1.2)))
    assert isinstance(found, StaleScales)
    assert (found.suffix, found.first, found.total) == ("weight_scale_2", (), 1)
    assert found.low <= float(right) <= found.high


def off_by(made: Made, factor: float) -> Scales:
    assert made.scales.weight_scale_2 is not None
    whole = np.asarray(made.scales.weight_scale_2 * np.float32(factor))
    return replace(made.scales, weight_scale_2=whole)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("factor", [1.01, 1 / 1.01, 1.05, 0.8, 1.6])
def test_the_scale_of_the_whole_is_told_to_one_percent(factor: float, own: bool) -> None:
    """Though a code may be wrong besides. Without a factor that nothing tells, at least."""
    for seed in range(4):
        made = make("nvfp4", seed, off=ROUNDINGS / 4)
        assert made.scales.weight_scale_2 is not None
        scales, folds = off_by(made, factor), [made.fold]
        if own:
            scales, folds = replace(scales, pre_quant_scale=made.fold), []
        else:
            folds = [make("nvfp4", 99).fold, made.fold]
        codes = made.codes.copy()
        codes[5, 8] ^= 2
        for found in (
            made.fault(scales, folds=folds),
            made.fault(scales, folds=folds, codes=codes),
        ):
            assert isinstance(found, StaleScales) and found.suffix == "weight_scale_2"
            assert found.low <= float(made.scales.weight_scale_2) <= found.high
            assert found.high / found.low < 1.02


def test_what_factors_of_columns_may_be_off_by_is_no_fault() -> None:
    """All of them by four roundings, to the same side: a scale that is off by as much."""
    for seed, factor in enumerate([1 + 2.0**-8, 1 - 2.0**-8, 1 + 2.0**-7 - 2.0**-9]):
        made = make("nvfp4", seed, off=2)
        assert made.fault(off_by(made, factor)) is None


def test_block_scales_are_not_the_whole_s_fault() -> None:
    """Half of them, all half as large: one factor does not make them right."""
    made = make("nvfp4", 5)
    wrong = made.scales.weight_scale.copy()
    wrong[:, ::2] -= 8
    found = made.fault(replace(made.scales, weight_scale=wrong))
    assert isinstance(found, StaleScales) and found.suffix == "weight_scale"


def test_the_second_scale_of_w4a8_is_no_part_of_it() -> None:
    made = make("int4-fp8", 5)
    assert made.fault(replace(made.scales, weight_scale_2=np.float32(7))) is None


def far_from(border: float, wanted: float) -> bool:
    """Whether what base gives is so far on its side of a border that roundings do not matter."""
    return abs(abs(wanted) - border) > abs(wanted) * 2.0**-6


@pytest.mark.parametrize("bit", range(4))
def test_a_bit_of_a_code(bit: int) -> None:
    """It is found unless it moves a value to a neighbour whose border base's value lies at, or
    is the sign of a zero, which is worth the same."""
    made = make("nvfp4", 6)
    missed = 0
    for at in zip(
        *(range(0, size, step) for size, step in ((ROWS, 1), (COLUMNS, 7))), strict=False
    ):
        codes = made.codes.copy()
        codes[at] ^= 1 << bit
        before, after = (float(E2M1[c & 7]) for c in (made.codes[at], codes[at]))
        found = made.fault(codes=codes)
        if bit == 3:
            told = after > 0
        else:
            told = bit > 0 or far_from((before + after) / 2, made.smoothed[at])
        if not told:
            missed += 1
            assert found is None
        else:
            assert isinstance(found, Strays) and (found.count, found.first) == (1, at)
    # Of zeros there are many; of values at a border, few.
    assert missed == 0 if bit in (1, 2) else 0 < missed < 12


def test_one_code_is_no_scale_s_fault() -> None:
    """Though another scale may go with its block as well."""
    made = make("nvfp4", 7)
    for column in range(0, COLUMNS, 5):
        codes = made.codes.copy()
        codes[7, column] ^= 2
        assert isinstance(made.fault(codes=codes), Strays)


def test_under_a_factor_that_is_not_the_one_nothing_is_said() -> None:
    made, other = make("int4", 8), make("int4", 9)
    scales = replace(made.scales, weight_scale=other.scales.weight_scale)
    assert made.fault(folds=[other.fold]) is None
    assert made.fault(scales, folds=[other.fold]) is None
    assert made.fault(scales, folds=[]) is None


@pytest.mark.parametrize("layout", SEARCHED)
def test_columns_whose_factor_is_lost_are_left_out(layout: LayoutName) -> None:
    """As behind a norm that is zero there."""
    made = make(layout, 10)
    fold = made.fold.copy()
    fold[[7, 200]] = np.nan
    codes = made.codes.copy()
    codes[:, 7] = -codes[:, 7] if layout != "nvfp4" else codes[:, 7] ^ 8
    assert made.fault(codes=codes) is not None
    assert made.fault(codes=codes, folds=[fold]) is None
    codes[5, 8] ^= 6
    found = made.fault(codes=codes, folds=[fold])
    assert isinstance(found, Strays) and (found.count, found.first) == (1, (5, 8))


def test_what_f16_is_too_coarse_for_is_no_fault() -> None:
    """Its steps below 2^-14 are no smaller for smaller values."""
    made = make("nvfp4", 11)
    tiny = made.base * 2.0**-14
    rounded = (tiny / made.fold).astype(np.float16).astype(np.float64)
    assert np.abs(rounded / (tiny / made.fold) - 1).max() > 2.0**-5
    whole = np.float32(float(made.scales.weight_scale_2) * 2.0**-14)  # type: ignore[arg-type]
    scales = replace(made.scales, weight_scale_2=whole)
    ratio = rounded / spread("nvfp4", scales)
    codes = np.searchsorted(BORDERS, np.abs(ratio)) + 8 * (ratio < 0)
    assert replace(made, base=tiny).fault(scales, codes=codes) is None


# Factors that lie nowhere

AXES = ("rows", "columns")


def moved(axis: str, seed: int, off: float = 0) -> Made:
    """The largest factor is the inverse of the smallest; of columns that is their only one."""
    size = (ROWS, 1) if axis == "rows" else (1, COLUMNS)
    gain = np.random.default_rng(100 + seed).permutation(np.geomspace(0.25, 4, max(size)))
    if axis == "columns":
        gain *= make("nvfp4", seed).fold
    return make("nvfp4", seed, off, gain.reshape(size))


@pytest.mark.parametrize("axis", AXES)
def test_a_factor_that_nothing_tells_is_no_fault(axis: str) -> None:
    for seed in range(4):
        made = moved(axis, seed, off=ROUNDINGS)
        folds = [make("nvfp4", 99).fold, made.fold] if axis == "rows" else []
        assert made.fault(folds=folds, rescaled=axis) is None


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("bit", [1, 2, 3])
def test_a_bit_under_such_a_factor(axis: str, bit: int) -> None:
    made = moved(axis, 5)
    folds = [make("nvfp4", 99).fold, made.fold] if axis == "rows" else []
    for row, column in zip(range(0, ROWS, 4), range(3, COLUMNS, 11), strict=False):
        if bit == 3 and not made.codes[row, column] & 7:
            continue
        codes = made.codes.copy()
        codes[row, column] ^= 1 << bit
        found = made.fault(codes=codes, folds=folds, rescaled=axis)
        assert isinstance(found, Strays) and (found.count, found.first) == (1, (row, column))


@pytest.mark.parametrize("axis", AXES)
def test_scales_under_such_a_factor(axis: str) -> None:
    made, other = moved(axis, 6), make("nvfp4", 99)
    folds = [other.fold, made.fold] if axis == "rows" else []
    scales = replace(made.scales, weight_scale=other.scales.weight_scale)
    found = made.fault(scales, folds=folds, rescaled=axis)
    # By columns, codes and scales cannot be told apart.
    assert isinstance(found, StaleScales if axis == "rows" else Strays)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("factor", [1.1, 0.9, 1.3])
def test_the_scale_of_the_whole_under_such_a_factor(axis: str, factor: float) -> None:
    """It makes the largest another number than the inverse of the smallest."""
    for seed in range(4):
        made = moved(axis, seed, off=ROUNDINGS / 4)
        assert made.scales.weight_scale_2 is not None
        folds = [make("nvfp4", 99).fold, made.fold] if axis == "rows" else []
        found = made.fault(off_by(made, factor), folds=folds, rescaled=axis)
        assert isinstance(found, StaleScales) and found.suffix == "weight_scale_2"
        assert found.low <= float(made.scales.weight_scale_2) <= found.high
        assert found.high / found.low < 1.2


@pytest.mark.parametrize("axis", AXES)
def test_a_line_of_zeros_may_have_any_factor(axis: str) -> None:
    """The largest too, so that nothing is known of the scale."""
    made = moved(axis, 3)
    line = (4, slice(None)) if axis == "rows" else (slice(None), 4)
    base, codes = made.base.copy(), made.codes.copy()
    base[line], codes[line] = 0, 0
    folds = [made.fold] if axis == "rows" else []
    scales = off_by(made, 1.3)
    assert replace(made, base=base).fault(scales, codes=codes, folds=folds, rescaled=axis) is None


def test_rows_are_not_judged_under_a_factor_that_is_not_the_one() -> None:
    made, other = moved("rows", 7), make("nvfp4", 99)
    codes = made.codes.copy()
    codes[3, 5] ^= 4
    assert made.fault(codes=codes, folds=[other.fold], rescaled="rows") is None
