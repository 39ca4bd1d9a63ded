"""What the tests of proving share: a small model, two schemes of it that its base explains, and
their proofs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from build import Spec, config, write_json, write_scheme, write_weights
from requantising import rows_of

from ckptdiff.events import CancelToken, Event, silent
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.proving import prove
from ckptdiff.jobs.reading import read_sweep
from ckptdiff.quant.dialects import Dialect
from ckptdiff.quant.registry import ClosedForm, closed_form, requantised
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.proof import Proof

LAYERS, HIDDEN, WIDE = 3, 64, 128
LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def names() -> list[str]:
    parents = {"gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp"}
    return [
        f"model.layers.{n}.{parents.get(leaf, 'self_attn')}.{leaf}"
        for n in range(LAYERS)
        for leaf in LEAVES
    ]


def originals() -> dict[str, np.ndarray]:
    """BF16 weights of a small model, each of another size of values, v_proj the largest."""
    rng = np.random.default_rng(7)
    shapes = {"gate_proj": (WIDE, HIDDEN), "up_proj": (WIDE, HIDDEN), "down_proj": (HIDDEN, WIDE)}
    found = {}
    for name in names():
        leaf = name.rpartition(".")[2]
        size = 0.2 if leaf == "v_proj" else rng.uniform(0.01, 0.1)
        values = rng.normal(0, size, shapes.get(leaf, (HIDDEN, HIDDEN)))
        found[name] = values.astype(ml_dtypes.bfloat16)
    return found


def base_tensors() -> dict[str, Spec]:
    found = {
        f"{name}.weight": Spec("BF16", weight.shape, "", weight.tobytes())
        for name, weight in originals().items()
    }
    return found | {
        "model.embed_tokens.weight": Spec("BF16", (32, HIDDEN), "embed"),
        "model.norm.weight": Spec("BF16", (HIDDEN,), "norm"),
    }


def packed(
    layout: str, quantized: list[str], shared_by: list[str] | None = None
) -> dict[str, Spec]:
    """The base with some modules quantized on a CPU; of NVFP4 q, k, v and gate, up share, or
    all of `shared_by` do."""
    found, weights = base_tensors(), originals()
    form = closed_form(layout)  # type: ignore[arg-type]
    assert isinstance(form, ClosedForm)
    dialect = Dialect("BF16", "cpu")
    groups = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1}
    for name in quantized:
        parent, _, leaf = name.rpartition(".")
        members = [
            other
            for other in quantized
            if other.rpartition(".")[0] == parent
            and groups.get(other.rpartition(".")[2], other) == groups.get(leaf, name)
        ]
        shared = shared_by or (members if layout == "nvfp4" else [name])
        rows = rows_of(weights[name])
        amax = np.maximum.reduce([form.amax(rows_of(weights[m]), dialect) for m in shared])
        scales = form.scales(np.asarray(amax), rows, dialect)
        codes = np.concatenate([part for _, part in requantised(form, rows, scales, dialect)])
        small = "F8_E4M3" if layout == "nvfp4" else "F32"
        kind = {"fp8": "F8_E4M3", "int8": "I8", "nvfp4": "U8"}[layout]
        found[f"{name}.weight"] = Spec(kind, codes.shape, "", codes.tobytes())
        for suffix, dtype in (("weight_scale", small), ("weight_scale_2", "F32")):
            scale = getattr(scales, suffix)
            if scale is not None:
                found[f"{name}.{suffix}"] = Spec(dtype, scale.shape, "", scale.tobytes())
        if layout != "int8":
            found[f"{name}.input_scale"] = Spec("F32", (), "input")
    return found


ALGORITHMS = {"fp8": "FP8", "int8": "W8A16", "nvfp4": "NVFP4"}


def write(folder: Path, layout: str = "fp8", *, shards: int = 1, most: int = 21) -> Path:
    """`folder/base` and two schemes below `folder/quantized`, the ROOT."""
    base = folder / "base"
    base.mkdir(parents=True)
    write_weights(base, base_tensors(), shards)
    write_json(base / "config.json", config(LAYERS))
    for number in (most // 2, most):
        scheme = folder / "quantized" / f"{layout}_{number}"
        write_scheme(
            scheme, packed(layout, names()[:number]),
            algorithm=ALGORITHMS[layout], layers=LAYERS, shards=shards,
        )  # fmt: skip
    for path in folder.rglob("*.safetensors"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder / "quantized"


def evidence_of(root: Path, how: Hashing | None = None) -> Evidence:
    token = CancelToken()
    sweep = read_sweep(root, base=root.parent / "base", sink=silent, cancel=token)
    return look(sweep, how, compare=True, sink=silent, cancel=token)[0]


def proofs(
    root: Path, sink: Callable[[Event], None] = silent, **options: object
) -> dict[str, Proof]:
    """The proofs of the larger scheme of a ROOT."""
    evidence = evidence_of(root)
    scheme = max(evidence.schemes, key=lambda s: len(s.coverage.quantized))
    assert evidence.base is not None
    options.setdefault("cancel", CancelToken())
    return dict(prove(scheme, evidence.base, sink=sink, **options))  # type: ignore[arg-type]
