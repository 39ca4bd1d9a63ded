"""Recomputing a weight: formulas written out again with numpy and ml_dtypes vouch for it."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest
from requantising import Packed, requantise, rows_of

from ckptdiff.analysis.proving.faults import Strays
from ckptdiff.analysis.proving.nearness import measure
from ckptdiff.analysis.proving.proof import Maxima, Weight, judge
from ckptdiff.quant.arrays import MisfitError, Rows, Scales
from ckptdiff.quant.dialects import Dialect, Host
from ckptdiff.records.layout import LayoutName
from ckptdiff.records.proof import LOWEST_SQNR_DB, MOST_SATURATED, Outcome

KINDS = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
ROWS, COLUMNS = 96, 320
ALL: tuple[LayoutName, ...] = (
    "fp8", "fp8-channel", "fp8-block", "int8", "nvfp4", "nvfp4-32", "mxfp8", "mxfp4"
)  # fmt: skip


def base_weight(seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Normal BF16 values."""
    values = np.random.default_rng(seed).normal(0, 0.03, (rows, columns))
    return values.astype(ml_dtypes.bfloat16)


def chunked(array: np.ndarray) -> Rows:
    """Rows in many small chunks."""
    return rows_of(array, elements=7 * array.shape[1])


def outcome(
    layouts: Sequence[LayoutName],
    codes: np.ndarray,
    scales: Scales,
    base: np.ndarray,
    *,
    hosts: tuple[Host, ...] = ("BF16", "F16", "F32"),
    shared: Sequence[np.ndarray] = (),
    **options: object,
) -> Outcome:
    weights = {"own": chunked(base), **{str(n): chunked(w) for n, w in enumerate(shared)}}
    weight = Weight(
        layouts=tuple(layouts),
        stored=chunked(codes),
        scales=scales,
        base=weights["own"],
        hosts=hosts,
        scale_hosts=("BF16", "F16"),
        shares=(("own",), tuple(weights)),
        **options,  # type: ignore[arg-type]
    )
    return judge(weight, Maxima(weights))


def packed(layout: LayoutName, base: np.ndarray, device: str = "cpu") -> Packed:
    return requantise(layout, rows_of(base), Dialect("BF16", device))  # type: ignore[arg-type]


def fp8(base: np.ndarray, host: str, device: str) -> tuple[np.ndarray, Scales]:
    """FP8 per tensor, facts written out: e4m3(T(T(W) / s)), CUDA e4m3(T(T(W) / T(s)))."""
    kind = KINDS[host]
    weight = base.astype(kind)
    amax = np.abs(weight.astype(np.float32)).max()
    cuda = amax * (np.float32(1) / np.float32(448))
    scale = amax / np.float32(448) if device == "cpu" else cuda
    step = scale if device == "cpu" else scale.astype(kind).astype(np.float32)
    quotient = (weight.astype(np.float32) / step).astype(kind).astype(np.float32)
    codes = quotient.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes, Scales(np.asarray(scale, np.float32))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("host", ["BF16", "F16", "F32"])
def test_each_dialect_of_fp8_is_told(host: str, device: str) -> None:
    base = base_weight(3)
    codes, scales = fp8(base, host, device)
    found = outcome(["fp8"], codes, scales, base)
    assert (found.status, found.layout) == ("proven", "fp8")
    assert f"BF16 {device}" in found.scale_dialects  # a BF16 base has one maximum in all hosts
    # F16 keeps so much more of a quotient than FP8 that it often comes to the codes of F32.
    assert f"{host} {device}" in found.code_dialects
    assert ("BF16 cpu" in found.code_dialects) == (host == "BF16" and device == "cpu")
    assert ("BF16 cuda" in found.code_dialects) == (host == "BF16" and device == "cuda")
    if device == "cuda" and host == "BF16":
        scale = float(scales.weight_scale)
        coarse = float(np.float32(scale).astype(KINDS[host]))
        assert found.gain == pytest.approx(scale / coarse - 1, rel=1e-9)
    else:
        assert found.gain is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("layout", ALL)
def test_every_format_is_proven(layout: LayoutName, device: str) -> None:
    base = base_weight(4)
    found = packed(layout, base, device)
    told = outcome([layout], found.codes, found.scales, base)
    assert told.status == "proven" and f"BF16 {device}" in told.scale_dialects
    assert told.codes == ROWS * COLUMNS


@pytest.mark.parametrize("layout", ALL)
def test_wrong_codes_are_counted_and_located(layout: LayoutName) -> None:
    base = base_weight(5)
    found = packed(layout, base)
    width = 2 if found.codes.shape[1] == COLUMNS // 2 else 1
    codes = found.codes.copy().view(np.uint8)
    places = [(11, 40), (11, 41), (70, 3), (95, 159)]
    for place in places:
        codes[place] ^= 1  # the code of the even column, where two share a byte
    told = outcome([layout], codes, found.scales, base)
    assert (told.status, told.wrong) == ("codes", 4)
    assert told.first == (11, 40 * width)
    mask = 15 if width == 2 else 255
    right, wrong = found.codes.view(np.uint8)[11, 40] & mask, codes[11, 40] & mask
    if layout == "int8":
        assert (told.expected, told.actual) == (
            str(np.uint8(right).view(np.int8)),
            str(np.uint8(wrong).view(np.int8)),
        )
    else:
        spell = "0x{:x}" if width == 2 else "0x{:02x}"
        assert (told.expected, told.actual) == (spell.format(right), spell.format(wrong))
    assert told.scale is None and told.sqnr_db is not None and told.sqnr_db > 10


@pytest.mark.parametrize("layout", ALL)
def test_a_wrong_scale_is_no_wrong_code(layout: LayoutName) -> None:
    base = base_weight(6)
    found = packed(layout, base)
    scale = found.scales.weight_scale.copy()
    flat = scale.reshape(-1)
    element = flat.size // 2
    flat[element] = flat[element] * 2 if scale.dtype == np.float32 else flat[element] + 1
    told = outcome([layout], found.codes, Scales(scale, found.scales.weight_scale_2), base)
    assert (told.status, told.scale, told.wrong) == ("scale", "weight_scale", 1)
    assert told.first == tuple(np.unravel_index(element, scale.shape))
    assert not told.follows


@pytest.mark.parametrize("layout", ["nvfp4", "nvfp4-32"])
def test_a_wrong_second_scale(layout: LayoutName) -> None:
    base = base_weight(7)
    found = packed(layout, base)
    second = found.scales.weight_scale_2
    assert second is not None
    doubled = np.asarray(2 * second, np.float32)
    told = outcome([layout], found.codes, Scales(found.scales.weight_scale, doubled), base)
    assert (told.status, told.scale) == ("scale", "weight_scale_2")
    assert (told.expected, told.actual) == (f"{second:.9g}", f"{doubled:.9g}")


def test_codes_and_scale_of_another_weight() -> None:
    base, other = base_weight(8), base_weight(9)
    found = packed("fp8", other)
    told = outcome(["fp8"], found.codes, found.scales, base)
    assert (told.status, told.scale) == ("codes", "weight_scale")
    assert told.wrong > 0.9 * base.size and told.sqnr_db is not None and told.sqnr_db < 1


def test_a_scale_that_its_codes_follow() -> None:
    base = base_weight(10)
    weight = base.astype(np.float32)
    scale = np.abs(weight).max(axis=1) / np.float32(100)
    codes = np.clip(np.rint(weight / scale[:, None]), -128, 127).astype(np.int8)
    told = outcome(["int8"], codes, Scales(scale), base)
    assert told.status == "scale" and told.follows


@pytest.mark.parametrize("order", [("fp8", "fp8-block"), ("fp8-block", "fp8")])
@pytest.mark.parametrize("layout", ["fp8", "fp8-block"])
def test_one_block_may_be_either_format(layout: LayoutName, order: Sequence[LayoutName]) -> None:
    """They have the same scale, and codes that a BF16 host makes unlike."""
    base = base_weight(11, 96, 128)
    found = packed(layout, base)
    told = outcome(order, found.codes, found.scales, base, hosts=("BF16",))
    assert (told.status, told.layout) == ("proven", layout)
    codes = found.codes.copy()
    codes[5, 6] ^= 1
    told = outcome(order, codes, found.scales, base, hosts=("BF16",))
    assert (told.status, told.layout, told.wrong, told.first) == ("codes", layout, 1, (5, 6))


@pytest.mark.parametrize("layout", ["fp8", "nvfp4", "nvfp4-32"])
def test_a_scale_may_be_shared(layout: LayoutName) -> None:
    base, partner = base_weight(12), 3 * base_weight(13).astype(np.float32)
    amax = np.asarray(np.abs(partner).max(), np.float32)
    found = requantise(layout, rows_of(base), Dialect("BF16", "cpu"), amax)
    assert outcome([layout], found.codes, found.scales, base).status != "proven"
    shared = outcome([layout], found.codes, found.scales, base, shared=[partner])
    assert shared.status == "proven"


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_values_that_no_scale_has_are_for_other_rules(value: float) -> None:
    base = base_weight(14)
    found = packed("int8", base)
    scale = found.scales.weight_scale.copy()
    scale[3] = value
    told = outcome(["int8"], found.codes, Scales(scale), base)
    assert (told.status, told.reason) == (
        "unknown",
        "its weight_scale has values that no scale can have",
    )


def test_a_base_of_zeros_is_for_other_rules() -> None:
    """ModelOpt gives it a scale of 0 and codes that are NaN."""
    base = np.zeros((16, 32), ml_dtypes.bfloat16)
    codes = np.full((16, 32), 0x7F, np.uint8)
    told = outcome(["fp8"], codes, Scales(np.zeros((), np.float32)), base)
    assert told.status == "unknown"


def test_all_codes_zero() -> None:
    base = base_weight(15)
    found = packed("fp8", base)
    told = outcome(["fp8"], np.zeros_like(found.codes), found.scales, base)
    assert told.zero and told.status == "codes"


# Distances


def sqnr(wanted: np.ndarray, values: np.ndarray) -> float:
    wanted = wanted.astype(np.float64)
    return float(10 * np.log10((wanted**2).sum() / ((values - wanted) ** 2).sum()))


def int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scale = (np.abs(weight).max(axis=1) / np.float32(127)).astype(np.float32)
    codes = np.rint(weight / scale[:, None]).astype(np.int8)
    return codes, scale, codes * scale[:, None]


def test_a_smoothed_weight_is_measured_where_it_was_rounded() -> None:
    base = base_weight(16)
    factor = np.geomspace(1e-3, 1e3, COLUMNS).astype(np.float32)
    smoothed = base.astype(np.float32) / factor
    codes, scale, values = int8(smoothed)
    found = outcome(["int8"], codes, Scales(scale, None, factor), base)
    assert found.status == "searched"
    assert found.sqnr_db == pytest.approx(sqnr(smoothed, values), abs=1e-3)
    # On the way back, the few columns that got a large factor are all that counts.
    assert sqnr(base, values * factor) < found.sqnr_db - 3


def test_a_factor_that_was_put_elsewhere() -> None:
    base = base_weight(17)
    folds = [np.random.default_rng(n).uniform(0.2, 3, COLUMNS).astype(np.float32) for n in (1, 2)]
    smoothed = base.astype(np.float32) / folds[1]
    codes, scale, values = int8(smoothed)
    near = measure("int8", chunked(codes), Scales(scale), chunked(base), folds)
    assert near.sqnr_db == pytest.approx(sqnr(smoothed, values), abs=1e-3)
    far = measure("int8", chunked(codes), Scales(scale), chunked(base), folds[:1])
    assert far.sqnr_db is not None and far.sqnr_db < 10


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_factors_that_nothing_tells(axis: str) -> None:
    """They are around 1, so that a factor over the whole weight is seen all the same."""
    base = base_weight(18)
    size = ROWS if axis == "rows" else COLUMNS
    factor = np.random.default_rng(3).permutation(np.geomspace(0.25, 4, size)).astype(np.float32)
    factor = factor[:, None] if axis == "rows" else factor
    smoothed = base.astype(np.float32) * factor
    codes, scale, values = int8(smoothed)
    near = measure("int8", chunked(codes), Scales(scale), chunked(base), (), axis)  # type: ignore[arg-type]
    assert near.sqnr_db == pytest.approx(sqnr(smoothed, values), abs=0.1)
    for wrong, most in ((np.float32(2), 0.1), (np.float32(0.5), 6.1)):
        far = measure("int8", chunked(codes), Scales(wrong * scale), chunked(base), (), axis)  # type: ignore[arg-type]
        assert far.sqnr_db is not None and far.sqnr_db < most
    other = measure("int8", chunked(codes), Scales(scale), chunked(base_weight(19)), (), axis)  # type: ignore[arg-type]
    assert other.sqnr_db is not None and other.sqnr_db < 3


def test_codes_at_their_extreme() -> None:
    base = base_weight(20)
    weight = base.astype(np.float32)
    scale = (0.3 * np.abs(weight).max(axis=1) / np.float32(127)).astype(np.float32)
    codes = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8)
    found = measure("int8", chunked(codes), Scales(scale), chunked(base))
    assert found.saturated == (np.abs(codes) == 127).mean() > MOST_SATURATED["int8"]


def test_an_error_beyond_all_measure() -> None:
    """One flipped bit of an E8M0 scale is a factor of 2^128: float32 overflows, and its squares."""
    base = base_weight(23)
    found = packed("mxfp8", base)
    scale = found.scales.weight_scale.copy()
    scale[0, 0] = 0xFE
    near = measure("mxfp8", chunked(found.codes), Scales(scale), chunked(base))
    assert near.sqnr_db == -np.inf
    assert outcome(["mxfp8"], found.codes, Scales(scale), base).status == "scale"


@pytest.mark.parametrize("own", [True, False])
def test_values_that_no_rounding_gives(own: bool) -> None:
    """Where the factor is known, each by itself."""
    base = base_weight(22)
    factor = np.random.default_rng(4).uniform(0.2, 3, COLUMNS).astype(np.float32)
    codes, scale, _ = int8(base.astype(np.float32) / factor)
    scales = Scales(scale, None, factor) if own else Scales(scale)
    folds = () if own else (factor,)

    def strays(codes: np.ndarray, folds: Sequence[np.ndarray] = folds) -> Strays | None:
        fault = measure("int8", chunked(codes), scales, chunked(base), folds).fault
        assert fault is None or isinstance(fault, Strays)
        return fault

    assert strays(codes) is None
    wrong = codes.copy()
    wrong[5, 3] += 40 if wrong[5, 3] < 0 else -40
    wrong[7, 11] ^= 0x40
    found = strays(wrong)
    assert found is not None and (found.count, found.first) == (2, (5, 3))
    assert found.wanted == pytest.approx(float(base[5, 3]) / factor[3], rel=1e-6)
    assert found.actual == pytest.approx(float(wrong[5, 3]) * scale[5], rel=1e-6)
    scales = Scales(scale * np.float32(0.999), None, scales.pre_quant_scale)
    assert strays(codes) is None  # a scale that is a little smaller moves no value that far
    if not own:
        other = np.random.default_rng(5).uniform(0.2, 3, COLUMNS).astype(np.float32)
        assert strays(wrong, [other]) is None  # which factor it was is not known


def test_nothing_is_measured_against_zeros() -> None:
    codes, scale, _ = int8(base_weight(21).astype(np.float32))
    found = measure("int8", chunked(codes), Scales(scale), chunked(np.zeros((ROWS, COLUMNS), "f4")))
    assert (found.sqnr_db, found.zero) == (None, False)


def test_what_does_not_go_together_is_said() -> None:
    codes, scale, _ = int8(base_weight(22).astype(np.float32))
    wrong = Scales(scale, None, np.ones(COLUMNS + 1, np.float32))
    with pytest.raises(MisfitError):
        measure("int8", chunked(codes), wrong, chunked(base_weight(22)))


@pytest.mark.parametrize("layout", LOWEST_SQNR_DB)
def test_the_limit_lies_above_a_scale_that_is_off_by_two(layout: LayoutName) -> None:
    assert LOWEST_SQNR_DB[layout] > 8
    assert layout in MOST_SATURATED
