"""What the tests of `diff` share: a scheme of the built sweep, and its rows in a report."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
from build import Spec, SweepSpec, write_weights

import ckptdiff
from ckptdiff.records.delta import TensorDelta

SPEC = SweepSpec()
FP8 = "model.layers.3.self_attn.o_proj"


def row(report: ckptdiff.DiffReport, name: str) -> TensorDelta:
    return next(row for row in report.tensors if row.name == name)


def different(report: ckptdiff.DiffReport) -> dict[str, str]:
    return {row.name: row.status for row in report.tensors if row.status != "same"}


def write(path: Path, found: dict[str, Spec]) -> Path:
    path.mkdir(parents=True)
    write_weights(path, found)
    return path


def plain(values: np.ndarray, dtype: str = "BF16") -> Spec:
    kind = {"BF16": ml_dtypes.bfloat16, "F16": "f2", "F32": "f4", "F64": "f8", "I64": "i8"}
    return Spec(dtype, values.shape, "", values.astype(kind[dtype]).tobytes())
