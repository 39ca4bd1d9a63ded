"""The formats of other tools, against their own code where it runs on a CPU.

AutoGPTQ and AutoAWQ do not, so their packing is written down here once more, value by value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdiff.quant import awq, compressed, deepseek, gpt_oss, gptq
from ckptdiff.quant.arrays import MisfitError
from ckptdiff.quant.packing import unpack
from ckptdiff.quant.tables import E4M3

RNG = np.random.default_rng(11)


def pack_words(values: np.ndarray, bits: int) -> np.ndarray:
    """Values [R, C] bit by bit into int32 [R, words], lowest bit first: slow and plain."""
    rows = []
    for row in values.tolist():
        number = sum(value << (bits * at) for at, value in enumerate(row))
        size = -(-len(row) * bits // 32) * 4
        rows.append(np.frombuffer(number.to_bytes(size, "little"), "<i4"))
    return np.array(rows, "<i4").reshape(len(values), -(-values.shape[1] * bits // 32))


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(1e-3, 0.1, shape).astype("f4")


def e4m3_codes(*shape: int) -> np.ndarray:
    codes = RNG.integers(0, 256, shape).astype(np.uint8)
    codes[codes & 0x7F == 0x7F] = 1
    return codes


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 5), st.integers(0, 100), st.integers(0, 1 << 32))
def test_values_of_any_width_are_unpacked(bits: int, rows: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, (rows, count)).astype(np.uint8)
    words = pack_words(values, bits)
    np.testing.assert_array_equal(unpack(words, bits, count), values)


def test_too_few_words_are_refused() -> None:
    with pytest.raises(MisfitError, match="2 words for 17 values"):
        unpack(np.zeros((1, 2), np.int32), 4, 17)
    with pytest.raises(MisfitError, match="9 bits"):
        unpack(np.zeros((1, 2), np.int32), 9, 1)


# compressed-tensors


def scheme(**weights: Any) -> Any:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    arguments = quantization.QuantizationArgs(**weights)
    return quantization.QuantizationScheme(targets=["Linear"], weights=arguments)


def decompressed(name: str, given_scheme: Any, **state: Any) -> np.ndarray:
    """What compressed-tensors makes of a module's tensors."""
    base = pytest.importorskip("compressed_tensors.compressors.base")
    compressor = base.BaseCompressor.get_value_from_registry(name)
    weight: np.ndarray = compressor.decompress(state, given_scheme)["weight"].float().numpy()
    return weight


@pytest.mark.parametrize("strategy", ["tensor", "channel", "block"])
def test_float_quantized(strategy: str) -> None:
    torch = pytest.importorskip("torch")
    codes = e4m3_codes(256, 384)
    scale = {"tensor": floats(1), "channel": floats(256, 1), "block": floats(2, 3)}[strategy]
    block = [128, 128] if strategy == "block" else None
    wanted = decompressed(
        "float-quantized",
        scheme(num_bits=8, type="float", strategy=strategy, block_structure=block),
        weight=torch.from_numpy(codes).view(torch.float8_e4m3fn),
        weight_scale=torch.from_numpy(scale),
    )
    side = 128 if strategy == "block" else None
    got = [compressed.dequantise_float(codes[a : a + 100], scale, a, side) for a in (0, 100, 200)]
    np.testing.assert_array_equal(np.concatenate(got), wanted)


@pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_int_quantized(strategy: str, symmetric: bool) -> None:
    torch = pytest.importorskip("torch")
    codes = RNG.integers(-128, 128, (64, 256)).astype(np.int8)
    shape = {"tensor": (1,), "channel": (64, 1), "group": (64, 2)}[strategy]
    scale = floats(*shape)
    zero = None if symmetric else RNG.integers(-128, 128, shape).astype(np.int8)
    wanted = decompressed(
        "int-quantized",
        scheme(
            num_bits=8,
            strategy=strategy,
            symmetric=symmetric,
            group_size=128 if strategy == "group" else None,
        ),
        weight=torch.from_numpy(codes),
        weight_scale=torch.from_numpy(scale),
        weight_zero_point=None if zero is None else torch.from_numpy(zero),
    )
    got = [compressed.dequantise_int(codes[a : a + 30], scale, zero, a) for a in (0, 30, 60)]
    np.testing.assert_array_equal(np.concatenate(got), wanted)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("strategy", ["group", "channel"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_pack_quantized(bits: int, strategy: str, symmetric: bool) -> None:
    torch = pytest.importorskip("torch")
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    low, high = -(1 << bits - 1), 1 << bits - 1
    values = RNG.integers(low, high, (48, 96)).astype(np.int8)
    shape = (48, 3) if strategy == "group" else (48, 1)
    scale = floats(*shape)
    zero = None
    if not symmetric:
        zero = RNG.integers(low, high, shape).astype(np.int8)
        zero = helpers.pack_to_int32(torch.from_numpy(zero), bits, packed_dim=0)
    packed = helpers.pack_to_int32(torch.from_numpy(values), bits)
    wanted = decompressed(
        "pack-quantized",
        scheme(
            num_bits=bits,
            strategy=strategy,
            symmetric=symmetric,
            group_size=32 if strategy == "group" else None,
        ),
        weight_packed=packed,
        weight_scale=torch.from_numpy(scale),
        weight_shape=torch.tensor([48, 96]),
        weight_zero_point=zero,
    )
    got = [
        compressed.dequantise_packed(
            packed.numpy()[a : a + 20],
            96,
            bits,
            scale,
            None if zero is None else zero.numpy(),
            first=a,
        )
        for a in (0, 20, 40)
    ]
    np.testing.assert_array_equal(np.concatenate(got), wanted)


def test_pack_quantized_with_activation_ordering() -> None:
    values = RNG.integers(0, 16, (8, 64)).astype(np.uint8)
    scale, index = floats(8, 4), RNG.permutation(np.repeat(np.arange(4), 16)).astype(np.int32)
    got = compressed.dequantise_packed(pack_words(values, 4), 64, 4, scale, group_index=index)
    wanted = [[(int(values[r, c]) - 8) * scale[r, index[c]] for c in range(64)] for r in range(8)]
    np.testing.assert_array_equal(got, np.array(wanted, "f4"))
    for wrong in (index[:10], index + 1):
        with pytest.raises(MisfitError, match="group index"):
            compressed.dequantise_packed(pack_words(values, 4), 64, 4, scale, group_index=wrong)
    with pytest.raises(MisfitError, match="3 scales a row for 64 columns"):
        compressed.dequantise_packed(pack_words(values, 4), 64, 4, floats(8, 3))


def test_nvfp4_pack_quantized() -> None:
    torch = pytest.importorskip("torch")
    codes = RNG.integers(0, 256, (48, 64)).astype(np.uint8)
    scale = e4m3_codes(48, 8) & 0x7F
    global_scale = np.array([123.4], "f4")
    # Their unpacking gives BF16, in which the product is then rounded; values times a power of
    # two are exact there, so the formula is compared with those, and in float64 with any.
    wanted = decompressed(
        "nvfp4-pack-quantized",
        scheme(num_bits=4, type="float", strategy="tensor_group", group_size=16),
        weight_packed=torch.from_numpy(codes),
        weight_scale=torch.from_numpy(scale).view(torch.float8_e4m3fn),
        weight_global_scale=torch.tensor([128.0]),
    )
    exact = compressed.dequantise_nvfp4(codes, scale, np.array([128.0], "f4"))
    np.testing.assert_array_equal(exact.astype("f4"), wanted)
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
    nibbles = np.stack([codes & 15, codes >> 4], 2).reshape(48, 128)
    full = values[nibbles] * np.repeat(E4M3[scale].astype("f8") / 123.4, 16, axis=1)
    got = [
        compressed.dequantise_nvfp4(codes[a : a + 20], scale, global_scale, a) for a in (0, 20, 40)
    ]
    np.testing.assert_allclose(np.concatenate(got), full, rtol=2e-7)


# DeepSeek, GPT-OSS


def test_deepseek_blocks_multiply_and_may_be_partial() -> None:
    codes, scale = e4m3_codes(300, 200), floats(3, 2)
    wanted = np.empty((300, 200), "f4")
    for r in range(0, 300, 128):
        for c in range(0, 200, 128):
            part = E4M3[codes[r : r + 128, c : c + 128]]
            wanted[r : r + 128, c : c + 128] = part * scale[r // 128, c // 128]
    got = [deepseek.dequantise(codes[a : a + 77], scale, a) for a in range(0, 300, 77)]
    np.testing.assert_array_equal(np.concatenate(got), wanted)
    # A column of scales is one of blocks, however few rows are asked for.
    narrow = deepseek.dequantise(codes[4:8, :64], scale[:, :1], 4)
    np.testing.assert_array_equal(narrow, wanted[4:8, :64])


def test_gpt_oss_experts() -> None:
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = RNG.integers(0, 256, (3, 40, 5, 16)).astype(np.uint8)
    scales = RNG.integers(100, 140, (3, 40, 5)).astype(np.uint8)
    theirs = mxfp4.convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    wanted = theirs.transpose(1, 2).reshape(120, 160).numpy()
    rows, groups = blocks.reshape(120, 5, 16), scales.reshape(120, 5)
    got = [gpt_oss.dequantise(rows[a : a + 50], groups, a) for a in (0, 50, 100)]
    np.testing.assert_array_equal(np.concatenate(got), wanted)
    with pytest.raises(MisfitError, match="blocks"):
        gpt_oss.dequantise(blocks.reshape(120, 10, 8), groups)


# GPTQ and AWQ


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_gptq(bits: int, v2: bool, ordered: bool) -> None:
    inputs, outputs, groups = 64, 32, 4
    values = RNG.integers(0, 1 << bits, (inputs, outputs)).astype(np.uint8)
    zeros = RNG.integers(0, 1 << bits, (groups, outputs)).astype(np.uint8)
    zeros[0, :3] = 0
    scales = floats(groups, outputs).astype(np.float16)
    group = np.repeat(np.arange(groups), inputs // groups)
    g_idx = RNG.permutation(group).astype(np.int32) if ordered else None
    of = group if g_idx is None else g_idx
    kept = zeros if v2 else (zeros.astype(int) - 1) % (1 << bits)
    qweight, qzeros = pack_words(values.T, bits).T, pack_words(kept, bits)
    wanted = np.array(
        [
            [
                (int(values[i, o]) - int(zeros[of[i], o])) * np.float32(scales[of[i], o])
                for i in range(inputs)
            ]
            for o in range(outputs)
        ],
        "f4",
    )
    got = [
        gptq.dequantise(qweight[:, a : a + 12], qzeros, scales, g_idx, bits, a, v2)
        for a in (0, 12, 24)
    ]
    np.testing.assert_array_equal(np.concatenate(got), wanted)


def test_awq() -> None:
    inputs, outputs, length = 64, 48, 16
    values = RNG.integers(0, 16, (inputs, outputs))
    zeros = RNG.integers(0, 16, (inputs // length, outputs))
    scales = floats(inputs // length, outputs).astype(np.float16)

    def pack(matrix: np.ndarray) -> np.ndarray:
        words = np.zeros((len(matrix), outputs // 8), np.uint32)
        for word in range(outputs // 8):
            for nibble, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                words[:, word] |= (matrix[:, 8 * word + output] << 4 * nibble).astype(np.uint32)
        return words.view(np.int32)

    wanted = np.array(
        [
            [
                (values[i, o] - zeros[i // length, o]) * np.float32(scales[i // length, o])
                for i in range(inputs)
            ]
            for o in range(outputs)
        ],
        "f4",
    )
    packed = pack(values)
    got = [awq.dequantise(packed[:, a : a + 4], pack(zeros), scales, a) for a in (0, 4)]
    np.testing.assert_array_equal(np.concatenate(got), wanted)


def test_transposed_formats_that_do_not_fit_are_refused() -> None:
    words, zeros, scales = np.zeros((8, 16), "i4"), np.zeros((2, 2), "i4"), floats(2, 16)
    assert gptq.dequantise(words, zeros, scales, None, 4).shape == (16, 64)
    for arguments in (
        (words, zeros, scales, None, 4, 1),
        (words, zeros[:1], scales, None, 4),
        (words, np.zeros((3, 2), "i4"), floats(3, 16), None, 4),
        (words, zeros, scales, np.full(64, 2), 4),
        (words, zeros, scales, np.zeros(65, int), 4),
    ):
        with pytest.raises(MisfitError):
            gptq.dequantise(*arguments)  # type: ignore[arg-type]
    words = np.zeros((32, 2), "i4")
    assert awq.dequantise(words, zeros, scales).shape == (16, 32)
    for first, length in ((1, 32), (0, 31)):
        with pytest.raises(MisfitError):
            awq.dequantise(words[:length], zeros, scales, first)
