"""Rounded inputs against ModelOpt's own quantized models, which are alive and not exported."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from requantising import rows_of
from transformers import PreTrainedModel

from ckptdiff.quant.arrays import Scales
from ckptdiff.quant.dialects import Dialect
from ckptdiff.quant.registry import ClosedForm, closed_form, dequantise
from ckptdiff.runtime import load_model
from ckptdiff.runtime.activations import round_fp8, round_int8, round_nvfp4
from ckptdiff.runtime.metrics import compare
from tests import exports_modelopt
from tests.exports import Cell, base_of, ensure
from tests.exports_models import batch

pytestmark = pytest.mark.timeout(1800)

# In float32, so that what is left between the two is not the rounding of the model itself.
# MoE hosts among them: their experts' linears are no modules.
LIVE = (
    Cell("llama", False, "f32", "fp8"),
    Cell("llama", False, "f32", "int8_sq"),
    Cell("qwen2_5_vl", False, "f32", "fp8"),
    Cell("qwen3_moe", False, "f32", "fp8"),
)


def last_logits(model: PreTrainedModel, arch: str) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(**batch(arch, torch.float32), use_cache=False).logits
    return logits[:, -1]


def mean_kl(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float(np.mean(compare(reference, other).kl))


@pytest.mark.parametrize("cell", LIVE, ids=lambda cell: cell.name)
def test_static_activations_are_those_of_the_live_model(cell: Cell, corpus: Path) -> None:
    """Every linear, given the live model's own inputs, gives its outputs, but for values so near
    the border of two codes that the order of the factors decides: those are a few hundredths of
    what rounding the inputs changes. In the whole model one of them changes codes of all layers
    behind it, and the logits end up a few percent of that apart.
    """
    root = ensure(corpus, [cell])[cell]
    (path,) = (p for p in root.iterdir() if "top100_" in p.name)
    exports_modelopt._install_cpu_stand_ins()
    model = exports_modelopt._load(base_of(corpus, cell))
    baseline = exports_modelopt.Baseline.of(cell.arch, cell.fmt, model)
    live = exports_modelopt._quantize(model, baseline, baseline.selected(100))
    for module in live.modules():
        if isinstance(module, torch.nn.Conv3d):  # alive it is quantized, and never exported so
            module.input_quantizer.disable()
            module.weight_quantizer.disable()
    calls: dict[str, tuple[tuple[torch.Tensor, ...], torch.Tensor]] = {}
    for name, module in live.named_modules():
        if name.endswith(("_proj", ".qkv", ".attn.proj", ".mlp.0", ".mlp.2", ".experts")):
            module.register_forward_hook(partial(record, calls, name))
    wanted = last_logits(live, cell.arch)
    options = {"dtype": "float32", "device": "cpu"}
    ours = load_model(path, activations="static", **options)
    plain = load_model(path, **options)
    off = {}
    for name, (inputs, output) in calls.items():
        with torch.inference_mode():
            rounded, given = (m.get_submodule(name)(*inputs) for m in (ours, plain))
        off[name] = float((rounded - output).norm() / (given - output).norm())
    assert len(calls) >= 15
    assert float(np.median([*off.values()])) < 1e-4 and max(off.values()) < 0.05
    assert mean_kl(wanted, last_logits(ours, cell.arch)) < 0.1 * mean_kl(
        wanted, last_logits(plain, cell.arch)
    )


def record(
    calls: dict[str, tuple[tuple[torch.Tensor, ...], torch.Tensor]],
    name: str,
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> None:
    """Keep the first call of a module."""
    calls.setdefault(name, (tuple(each.detach().clone() for each in inputs), output.detach()))


def values(rows: int = 64, columns: int = 96, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((rows, columns)) * np.exp(2 * rng.standard_normal((rows, columns)))
    found[0, :5] = (0, -0.0, 1e30, -1e30, 1e-30)
    return found.astype(np.float32)


def test_fp8_rounding_is_a_cast_of_scaled_values() -> None:
    x, scale = values(), np.float32(0.013)
    factor = np.float32(448) / (np.float32(448) * scale)
    codes = np.clip(x * factor, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    wanted = codes.astype(np.float32) * (np.float32(1) / factor)
    got = round_fp8(torch.from_numpy(x), float(scale)).numpy()
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(got[np.abs(x) < 5], x[np.abs(x) < 5], rtol=0.07, atol=scale * 2**-9)


def test_int8_rounding_keeps_multiples_of_the_scale() -> None:
    x, scale = values(), 0.05
    got = round_int8(torch.from_numpy(x), scale).numpy()
    wanted = np.clip(np.round(x.astype(np.float64) / np.float32(scale)), -128, 127)
    np.testing.assert_allclose(got, wanted * np.float32(scale), rtol=1e-6)
    assert (round_int8(torch.from_numpy(x), 0.0) == 0).all()


@pytest.mark.parametrize("columns", [96, 40])
def test_nvfp4_rounding_is_what_its_weights_are(columns: int) -> None:
    """The closed form of NVFP4 weights, which is ModelOpt's to the bit, applied to inputs."""
    x, scale = np.clip(values(columns=columns), -50, 50), np.float32(50 / 2688)
    padded = np.pad(x, ((0, 0), (0, -columns % 16)))
    form, dialect = closed_form("nvfp4"), Dialect("F32", "cpu")
    assert isinstance(form, ClosedForm)
    scales = form.scales(np.float32(50), rows_of(padded), dialect)
    codes = form.codes(padded, scales, dialect, 0)
    wanted = dequantise("nvfp4", codes, Scales(scales.weight_scale, np.asarray(scale)))
    got = round_nvfp4(torch.from_numpy(x), float(scale)).numpy()
    np.testing.assert_allclose(got, wanted[:, :columns], rtol=1e-6)


def test_the_simulation_can_be_ended(corpus: Path) -> None:
    from ckptdiff.runtime.activations import simulate
    from ckptdiff.runtime.contents import contents
    from ckptdiff.runtime.filling import arrange
    from ckptdiff.runtime.loading import read_scheme
    from ckptdiff.runtime.places import Places

    cell = Cell("qwen3_moe", False, "f32", "fp8")
    root = ensure(corpus, [cell])[cell]
    (path,) = (p for p in root.iterdir() if "top100_" in p.name)
    model = load_model(path, dtype="float32", device="cpu")
    before = last_logits(model, cell.arch)
    places, scheme = Places(model), read_scheme(path)
    arrangement = arrange(places, contents(scheme, smooth=False), str(path))
    simulation = simulate(model, places, scheme, arrangement)
    during = last_logits(model, cell.arch)
    simulation.remove()
    assert not torch.equal(before, during)
    # Experts stay in the implementation that the simulation needs, which adds up differently.
    torch.testing.assert_close(last_logits(model, cell.arch), before)
