"""The ways in which one formula comes out: what the exporter's model was held in, and where.

A file does not say either, and both show in its bytes, so a proof tries those that apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from ckptdiff.quant.arrays import F32, Array

Host = Literal["BF16", "F16", "F32"]
Device = Literal["cpu", "cuda"]

HOSTS: tuple[Host, ...] = ("BF16", "F16", "F32")
DEVICES: tuple[Device, ...] = ("cpu", "cuda")
_NUMPY: dict[Host, np.dtype[np.generic]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
# The smallest and the largest normal number.
_NORMAL: dict[Host, tuple[np.float32, np.float32]] = {
    "BF16": (np.float32(2.0**-126), np.float32((2 - 2.0**-7) * 2.0**127)),
    "F16": (np.float32(2.0**-14), np.float32(65504)),
    "F32": (np.float32(2.0**-126), np.finfo(np.float32).max),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """`host` is the dtype of the model when it was packed, `device` where that happened."""

    host: Host
    device: Device


ALL = tuple(Dialect(host, device) for host in HOSTS for device in DEVICES)


def hosted(weight: Array, host: Host) -> Array:
    """The base weight (BF16, F16, F32 or F64) in the dtype that the model had.

    Rounds to nearest even; what overflows F16 becomes infinite.
    """
    if weight.dtype == _NUMPY[host]:
        return weight
    with np.errstate(all="ignore"):
        return weight.astype(_NUMPY[host])


def rounded(values: F32, host: Host) -> F32:
    """float32 values as they are after a stay in the dtype of the model."""
    return values if host == "F32" else hosted(values, host).astype(np.float32)


def over(amax: F32, divisor: float, device: Device) -> F32:
    """`amax / divisor` in float32, as the device has it.

    A GPU kernel that is given a plain number multiplies by its float32 reciprocal instead
    (PyTorch's div_true_kernel_cuda), which is one ulp off in half the cases.
    """
    with np.errstate(all="ignore"):
        if device == "cpu":
            return np.asarray(amax / np.float32(divisor), np.float32)
        return np.asarray(amax * (np.float32(1) / np.float32(divisor)), np.float32)


def sanitised(amax: F32, bound: float, host: Host) -> F32:
    """Maxima as ModelOpt 0.47's `export_amax` hands them out for scales a row or a block.

    Where one is 0 it becomes `bound`, so that the scale is 1 and all codes are 0; else it is
    kept within the normal numbers of the host, which only F16 shows: not below 2^-14. (What is
    not finite never gets that far: calibration refuses it.)
    """
    kept = np.clip(amax, *_NORMAL[host])
    return np.where((amax == 0) | np.isnan(amax), np.float32(bound), kept)
