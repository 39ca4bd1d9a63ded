"""The same numbers from ModelOpt's own quantizers, on weights that no healthy model has.

Exports of the corpus cover what is usual; here are zeros, NaN, infinities, tiny and huge values,
one row, partial blocks, and every host's dtype.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from requantising import Packed, requantise, rows_of

from ckptdiff.quant.arrays import Scales
from ckptdiff.quant.dialects import HOSTS, Dialect, Host, over
from ckptdiff.quant.registry import ClosedForm, closed_form, dequantise

torch = pytest.importorskip("torch")
quant_utils = pytest.importorskip("modelopt.torch.export.quant_utils")
qtensor = pytest.importorskip("modelopt.torch.quantization.qtensor")

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
ML = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    normal = (rng.standard_normal((64, 256)) * 0.02).astype("f4")
    spread = (normal * np.exp(rng.standard_normal((64, 256)) * 4)).astype("f4")
    zero_blocks = normal.copy()
    zero_blocks[3, :64] = 0
    zero_blocks[5, 32:64] = -0.0
    zero_blocks[6, 0] = 1e-30
    tiny = np.full((4, 64), 1e-38, "f4") * rng.standard_normal((4, 64)).astype("f4")
    return {
        "normal": normal,
        "spread": spread,
        "zero-blocks": zero_blocks,
        "one-row": normal[:1],
        "tiny": tiny,
        "huge": np.clip(normal * np.float32(1e38), -3e38, 3e38),
        "zero-row": np.where(np.arange(64)[:, None] == 9, 0, normal).astype("f4"),
        "below-f16": (normal * np.float32(1e-4)).astype("f4"),
        "powers": np.ldexp(np.float32(1), rng.integers(-20, 10, (8, 64))).astype("f4") * 6,
    }


WEIGHTS = _weights()
ODD = {
    "zero": np.zeros((4, 64), "f4"),
    "nan": np.where(np.arange(256).reshape(4, 64) == 70, np.nan, WEIGHTS["normal"][:4, :64]),
    "inf": np.where(np.arange(256).reshape(4, 64) == 70, np.inf, WEIGHTS["normal"][:4, :64]),
    "-inf": np.where(np.arange(256).reshape(4, 64) == 70, -np.inf, WEIGHTS["normal"][:4, :64]),
}
ODD = {name: weight.astype("f4") for name, weight in ODD.items()}
ALL = {**WEIGHTS, **ODD}


def hosted(weight: np.ndarray, host: Host) -> tuple[np.ndarray, Any]:
    """The weight as ours and as theirs, both in the dtype of the host."""
    with np.errstate(all="ignore"):
        ours = weight.astype(ML[host])
    return ours, torch.from_numpy(weight).to(DTYPES[host])


def ours_of(layout: Any, weight: np.ndarray, host: Host) -> Packed:
    return requantise(layout, rows_of(weight, 100), Dialect(host, "cpu"))


def equal_codes(got: np.ndarray, wanted: Any) -> bool:
    return bool((got.view(np.uint8) == wanted.contiguous().view(torch.uint8).numpy()).all())


def equal_e4m3(got: np.ndarray, wanted: Any) -> bool:
    """As codes, but any NaN is a NaN: its sign is the processor's."""
    theirs = wanted.contiguous().view(torch.uint8).numpy()
    nan = (theirs & 0x7F) == 0x7F
    return bool((got[~nan] == theirs[~nan]).all() and (got[nan] & 0x7F == 0x7F).all())


def scale_of_rows(theirs: Any, num_bits: Any) -> Any:
    """weight_scale [R] from a calibrated quantizer, or None when calibration refuses."""
    if not theirs.isfinite().all():
        return None
    config = pytest.importorskip("modelopt.torch.quantization.config")
    nn = pytest.importorskip("modelopt.torch.quantization.nn")
    quantizer = nn.TensorQuantizer(config.QuantizerAttributeConfig(num_bits=num_bits, axis=0))
    quantizer.amax = theirs.abs().amax(1, keepdim=True)
    return quant_utils.get_scaling_factor(quantizer).reshape(-1)


hosts = pytest.mark.parametrize("host", HOSTS)
weights = pytest.mark.parametrize("name", ALL)


@hosts
@weights
def test_fp8_of_a_tensor(name: str, host: Host) -> None:
    base, theirs = hosted(ALL[name], host)
    packed = ours_of("fp8", base, host)
    scale = torch.tensor(theirs.abs().amax().float().item() / 448.0)
    np.testing.assert_array_equal(packed.scales.weight_scale, scale.numpy())
    assert equal_e4m3(packed.codes, quant_utils.to_quantized_weight(theirs, scale, "fp8"))


def test_fp8_of_a_large_tensor_is_looked_up() -> None:
    weight = np.tile(WEIGHTS["normal"], (8, 4))
    for host in HOSTS:
        base, theirs = hosted(weight, host)
        scale = torch.tensor(theirs.abs().amax().float().item() / 448.0)
        got = ours_of("fp8", base, host).codes
        assert got.size > 1 << 16
        form = closed_form("fp8")
        assert isinstance(form, ClosedForm)
        whole = form.codes(base, Scales(scale.numpy()), Dialect(host, "cpu"), 0)
        theirs_codes = quant_utils.to_quantized_weight(theirs, scale, "fp8")
        assert equal_codes(got, theirs_codes) and equal_codes(whole, theirs_codes)


@hosts
@weights
def test_fp8_of_rows(name: str, host: Host) -> None:
    base, theirs = hosted(ALL[name], host)
    packed = ours_of("fp8-channel", base, host)
    scale = scale_of_rows(theirs, (4, 3))
    if scale is None:
        return  # there is no such export
    np.testing.assert_array_equal(packed.scales.weight_scale, scale.numpy())
    theirs_codes = quant_utils.to_quantized_weight(
        theirs, scale, quant_utils.QUANTIZATION_FP8_PC_PT
    )
    assert equal_codes(packed.codes, theirs_codes)


@hosts
@pytest.mark.parametrize("shape", [(1, 1), (80, 80), (128, 128), (129, 64), (300, 257), (1, 300)])
def test_fp8_of_blocks(shape: tuple[int, int], host: Host) -> None:
    weight = np.random.default_rng(1).standard_normal(shape).astype("f4")
    base, theirs = hosted(weight, host)
    quantized, scale = qtensor.FP8QTensor.quantize(theirs.float(), block_sizes={-1: 128, -2: 128})
    packed = ours_of("fp8-block", base, host)
    np.testing.assert_array_equal(packed.scales.weight_scale.ravel(), scale.numpy().ravel())
    rows, columns = scale.shape
    wanted = () if rows * columns == 1 else (rows, 1, columns, 1)
    assert packed.scales.weight_scale.shape == wanted
    assert equal_codes(packed.codes, quantized._quantized_data)
    back = quantized.dequantize(torch.float32, scale=scale, block_sizes={-1: 128, -2: 128})
    values = dequantise("fp8-block", packed.codes, packed.scales)
    np.testing.assert_array_equal(values, back.numpy())


@hosts
@weights
def test_int8(name: str, host: Host) -> None:
    base, theirs = hosted(ALL[name], host)
    packed = ours_of("int8", base, host)
    scale = scale_of_rows(theirs, 8)
    if scale is None:
        scale = torch.from_numpy(packed.scales.weight_scale)
    np.testing.assert_array_equal(packed.scales.weight_scale, scale.numpy())
    theirs_codes = quant_utils.to_quantized_weight(theirs, scale, quant_utils.QUANTIZATION_INT8_SQ)
    assert equal_codes(packed.codes, theirs_codes)


@hosts
def test_int8_saturates_under_a_scale_that_is_too_small(host: Host) -> None:
    base, theirs = hosted(WEIGHTS["normal"], host)
    scale = theirs.abs().amax(1).float() / 200
    form = closed_form("int8")
    assert isinstance(form, ClosedForm)
    got = form.codes(base, Scales(scale.numpy()), Dialect(host, "cpu"), 0)
    theirs_codes = quant_utils.to_quantized_weight(theirs, scale, quant_utils.QUANTIZATION_INT8_SQ)
    assert got.min() == -128 and got.max() == 127 and equal_codes(got, theirs_codes)


@hosts
@weights
@pytest.mark.parametrize(
    ("layout", "block", "divisor"), [("nvfp4", 16, 2688), ("nvfp4-32", 32, 448)]
)
def test_nvfp4(name: str, host: Host, layout: Any, block: int, divisor: int) -> None:
    base, theirs = hosted(ALL[name], host)
    packed = ours_of(layout, base, host)
    scale_2 = theirs.abs().amax().float() / divisor
    scale, _ = qtensor.NVFP4QTensor.get_weights_scaling_factor(theirs, block, scale_2)
    np.testing.assert_array_equal(packed.scales.weight_scale_2, scale_2.numpy())
    assert equal_e4m3(packed.scales.weight_scale, scale)
    quantized = qtensor.NVFP4QTensor.quantize(theirs, block, scale, scale_2)[0]
    assert equal_codes(packed.codes, quantized._quantized_data)
    back = quantized.dequantize(
        torch.float32, scale=scale, double_scale=scale_2, block_sizes={-1: block}
    )
    values = dequantise(layout, packed.codes, packed.scales)
    np.testing.assert_array_equal(values, back.numpy())


@hosts
@weights
def test_mxfp8(name: str, host: Host) -> None:
    base, theirs = hosted(ALL[name], host)
    packed = ours_of("mxfp8", base, host)
    quantized, scale = qtensor.MXFP8QTensor.quantize(theirs)
    np.testing.assert_array_equal(packed.scales.weight_scale, scale.numpy())
    assert equal_e4m3(packed.codes, quantized._quantized_data)
    back = quantized.dequantize(torch.float32, scale=scale)
    values = dequantise("mxfp8", packed.codes, packed.scales)
    np.testing.assert_array_equal(values, back.numpy())


@hosts
@weights
def test_mxfp4(name: str, host: Host) -> None:
    base, theirs = hosted(ALL[name], host)
    packed = ours_of("mxfp4", base, host)
    quantized, scale = qtensor.MXFP4QTensor.quantize(theirs, 32)
    np.testing.assert_array_equal(packed.scales.weight_scale.ravel(), scale.numpy().ravel())
    assert equal_codes(packed.codes, quantized._quantized_data)
    back = quantized.dequantize(torch.float32, scale=scale, block_sizes={-1: 32})
    values = dequantise("mxfp4", packed.codes, packed.scales)
    np.testing.assert_array_equal(values, back.numpy())


def test_the_exponent_of_every_16_bit_maximum() -> None:
    """One block a value: all of BF16 and F16, and the float32 beside each power of two."""
    bf16 = np.arange(0x7F80, dtype=np.uint16).view(ml_dtypes.bfloat16).astype("f4")
    f16 = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype("f4")
    powers = np.ldexp(np.array([[6], [448]], "f4"), np.arange(-120, 118)[None]).ravel()
    near = [np.nextafter(powers, np.float32(to)) for to in (0, np.inf)]
    amax = np.concatenate([bf16, f16, powers, *near]).astype("f4")
    base = np.zeros((len(amax), 32), "f4")
    base[:, 5] = amax
    theirs = torch.from_numpy(base)
    for layout, wanted in (
        ("mxfp8", qtensor.MXFP8QTensor.get_weights_scaling_factor(theirs)),
        ("mxfp4", qtensor.MXFP4QTensor.quantize(theirs, 32)[1]),
    ):
        got = ours_of(layout, base, "F32").scales.weight_scale
        np.testing.assert_array_equal(got.ravel(), wanted.numpy().ravel())


def test_int4_unpacks_what_modelopt_packs() -> None:
    rng = np.random.default_rng(3)
    scale = rng.uniform(0.001, 0.1, (64, 2)).astype("f4")
    wanted = rng.integers(-8, 8, (64, 256)).astype("f4") * np.repeat(scale, 128, axis=1)
    packed = quant_utils.pack_int4_in_uint8(torch.from_numpy(wanted), torch.from_numpy(scale), 128)
    for layout in ("int4", "int4-fp8"):
        values = dequantise(layout, packed.numpy(), Scales(scale))  # type: ignore[arg-type]
        np.testing.assert_array_equal(values, wanted)


# A GPU is not at hand: what it does is written down in numpy and ml_dtypes, straight from the
# formula, and the fast way has to agree.


@hosts
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fp8_on_a_gpu(name: str, host: Host) -> None:
    base, _ = hosted(WEIGHTS[name], host)
    packed = requantise("fp8", rows_of(base), Dialect(host, "cuda"))
    amax = np.abs(base.astype("f4")).max()
    scale = amax * np.float32(1 / 448)
    assert packed.scales.weight_scale == scale or np.isnan(scale)
    step = scale.astype(ML[host]).astype("f4")
    quotient = (base.astype("f4") / step).astype(ML[host])
    wanted = quotient.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    nan = wanted & 0x7F == 0x7F
    assert (packed.codes[~nan] == wanted[~nan]).all() and (packed.codes[nan] & 0x7F == 0x7F).all()


def test_a_gpu_multiplies_by_the_reciprocal() -> None:
    amax = np.random.default_rng(0).uniform(0, 10, 10000).astype("f4")
    for divisor in (448.0, 127.0, 2688.0, 6.0):
        got = over(amax, divisor, "cuda")
        reciprocal = np.float64(np.float32(1.0 / divisor))
        np.testing.assert_array_equal(got, (amax.astype("f8") * reciprocal).astype("f4"))
        ulps = np.abs(got.view(np.int32) - over(amax, divisor, "cpu").view(np.int32))
        assert ulps.max() == 1 and 0.01 < ulps.mean() < 0.6


@pytest.mark.parametrize("layout", ["int8", "fp8-channel", "fp8-block", "nvfp4", "mxfp8", "mxfp4"])
def test_on_a_gpu_the_codes_follow_the_scales_as_on_a_cpu(layout: Any) -> None:
    base = WEIGHTS["normal"]
    form = closed_form(layout)
    assert isinstance(form, ClosedForm)
    packed = requantise(layout, rows_of(base), Dialect("F32", "cuda"))
    on_cpu = form.codes(base, packed.scales, Dialect("F32", "cpu"), 0)
    np.testing.assert_array_equal(packed.codes, on_cpu)
    values = dequantise(layout, packed.codes, packed.scales)
    assert np.abs(values - base).max() < np.abs(base).max() * 0.2
