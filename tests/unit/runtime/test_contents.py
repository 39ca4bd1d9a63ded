"""Values that are computed on the device are those that numpy computes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from requantising import rows_of

from ckptdiff.quant.arrays import Scales
from ckptdiff.quant.registry import dequantise
from ckptdiff.runtime.contents import products
from ckptdiff.runtime.values import as_torch

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("layout", ["fp8", "fp8-channel", "int8"])
def test_products_on_a_device(layout: Any, smoothed: bool) -> None:
    codes = RNG.integers(0, 256, (50, 96)).astype(np.uint8)
    codes[codes & 0x7F == 0x7F] = 1
    dtype = "F8_E4M3"
    if layout == "int8":
        codes, dtype = codes.view(np.int8), "I8"
    scale = RNG.uniform(1e-4, 1e-2, () if layout == "fp8" else 50).astype(np.float32)
    factor = RNG.uniform(0.5, 2, 96).astype(ml_dtypes.bfloat16) if smoothed else None
    scales = Scales(np.asarray(scale), None, factor)
    # The CPU stands for the device: the products are the same float32 ones on any.
    parts = list(products(rows_of(codes, 1000), dtype, scales, torch.device("cpu")))
    assert [first for first, _ in parts] == list(range(0, 50, 10))
    got = torch.cat([values for _, values in parts]).numpy()
    np.testing.assert_array_equal(got, dequantise(layout, codes, scales))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("BF16", ml_dtypes.bfloat16), ("F16", np.float16), ("F32", np.float32)]
)
def test_numbers_keep_their_bits(dtype: str, kind: Any) -> None:
    array = RNG.standard_normal((3, 4)).astype(kind)
    np.testing.assert_array_equal(as_torch(array, dtype).float().numpy(), array.astype("f4"))
    assert as_torch(array[:0], dtype).shape == (0, 4)
