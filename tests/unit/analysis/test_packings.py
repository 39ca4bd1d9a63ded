"""`diff` on what other exporters write, against the libraries that own the formats.

The forged tensors and what they stand for are those of `test_loading_foreign`: compressed-tensors
says it itself, for GPTQ, AWQ and DeepSeek it is their formula, element by element.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import ckptdiff
from ckptdiff.records.delta import DiffReport, TensorDelta
from tests.runtime.test_loading_foreign import FORMATS, group, integers

NAME = "model.layers.0.mlp.down_proj"
ROWS, COLUMNS = 256, 128
State = dict[str, torch.Tensor]


def write(path: Path, state: State, config: Any = None) -> Path:
    path.mkdir()
    document: dict[str, Any] = {"architectures": ["LlamaForCausalLM"]}
    if config is not None:
        document["quantization_config"] = config
    (path / "config.json").write_text(json.dumps(document))
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


def forged(name: str) -> tuple[State, torch.Tensor, dict[str, Any]]:
    forge, config = FORMATS[name]
    state, wanted = forge(ROWS, COLUMNS)
    return {f"{NAME}.{leaf}": tensor for leaf, tensor in state.items()}, wanted, config


def compared(a: Path, b: Path, **options: Any) -> DiffReport:
    return ckptdiff.diff(a, b, cache=False, **options)


def row(report: DiffReport) -> TensorDelta:
    (found,) = (r for r in report.tensors if r.name.startswith(NAME) and r.a and r.b)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_what_their_exporter_says(name: str, tmp_path: Path) -> None:
    state, wanted, config = forged(name)
    a = write(tmp_path / "a", {f"{NAME}.weight": wanted})
    b = write(tmp_path / "b", state, config)
    for one, other in ((a, b), (b, a)):
        found = row(compared(one, other))
        assert (found.status, found.reason, found.max_abs) == ("dtype", None, 0.0)
        assert found.a is not None and found.a.shape == (ROWS, COLUMNS)
    assert compared(a, b).verdict == "different"  # other bytes, though equal values


@pytest.mark.parametrize("name", FORMATS)
def test_another_element(name: str, tmp_path: Path) -> None:
    """One value that is another, found by its place; float64 says by how much."""
    state, wanted, config = forged(name)
    changed = wanted.clone()
    changed[200, 77] += 0.5
    a = write(tmp_path / "a", {f"{NAME}.weight": changed})
    found = row(compared(a, write(tmp_path / "b", state, config)))
    assert found.first_difference == (200, 77)
    error = (changed.double() - wanted.double()).abs()
    assert found.max_abs == pytest.approx(error.max().item())
    assert found.changed_share == 1 / changed.numel()


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_scales_of_one_format(name: str, tmp_path: Path) -> None:
    state, wanted, config = forged(name)
    a = write(tmp_path / "a", state, config)
    weight = next(n for n in state if n.endswith((".weight", ".qweight", ".weight_packed")))
    codes = dict(state)
    codes[weight] = state[weight].clone()
    codes[weight].view(torch.uint8)[9, 5] ^= 1
    found = row_of(compared(a, write(tmp_path / "codes", codes, config)), weight)
    assert (found.status, found.cause) == ("changed", "codes")
    assert found.changed_share is not None and 0 < float(found.changed_share) <= 1 / wanted.numel()
    scale = next(n for n in state if n.endswith(("weight_scale", "scale_inv", ".scales")))
    doubled = {**state, scale: (state[scale].float() * 2).to(state[scale].dtype)}
    found = row_of(compared(a, write(tmp_path / "scale", doubled, config)), weight)
    assert (found.status, found.cause) == ("changed", "scales")
    if name != "nvfp4":  # whose largest scales cannot be doubled
        assert found.rel_error == pytest.approx(1.0)
    assert compared(a, write(tmp_path / "same", state, config)).verdict == "same"


def row_of(report: DiffReport, name: str) -> TensorDelta:
    (found,) = (r for r in report.tensors if r.name == name)
    return found


def test_rows_are_read_in_any_number_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transposed matrix in steps of 8 rows, of which the last is shorter."""
    from ckptdiff.analysis import unpacking
    from ckptdiff.analysis.differing import operands

    monkeypatch.setattr(unpacking, "_SMALL", 0)
    monkeypatch.setattr(operands, "_TRANSPOSED_CHUNK", 3 * COLUMNS)
    monkeypatch.setattr(operands, "CHUNK", 3 * COLUMNS)
    for name in FORMATS:
        state, wanted, config = forged(name)
        a = write(tmp_path / f"a-{name}", {f"{NAME}.weight": wanted})
        found = row(compared(a, write(tmp_path / f"b-{name}", state, config)))
        assert found.max_abs == 0.0


def experts(count: int, outputs: int, inputs: int) -> tuple[State, torch.Tensor]:
    blocks = integers(0, 256, count, outputs, inputs // 32, 16).to(torch.uint8)
    scales = integers(120, 130, count, outputs, inputs // 32).to(torch.uint8)
    plain = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    return {"_blocks": blocks, "_scales": scales}, plain


def test_experts_of_gpt_oss(tmp_path: Path) -> None:
    """transformers holds [experts, I, O]; its neighbour tells which way a square matrix lies."""
    owner = "model.layers.0.mlp.experts"
    packed: State = {}
    plain: State = {}
    for leaf, outputs in (("gate_up_proj", 192), ("down_proj", 96)):
        state, plain[f"{owner}.{leaf}"] = experts(3, outputs, 96)
        packed |= {f"{owner}.{leaf}{end}": tensor for end, tensor in state.items()}
    config = {"quant_method": "mxfp4"}
    a, b = write(tmp_path / "a", plain), write(tmp_path / "b", packed, config)
    report = compared(a, b)
    assert [(r.status, r.max_abs) for r in report.tensors] == [("dtype", 0.0)] * 6
    other = {name: tensor.clone() for name, tensor in packed.items()}
    other[f"{owner}.down_proj_blocks"][1, 5, 2, 7] ^= 0x70
    report = compared(b, write(tmp_path / "c", other, config))
    (found,) = (r for r in report.tensors if r.status != "same")
    assert found.name == f"{owner.removeprefix('model.')}.1.down_proj.weight"
    # The high nibble of byte 7 in block 2 is column 2 * 32 + 15.
    assert (found.status, found.first_difference) == ("changed", (5, 79))
    other = {name: tensor.clone() for name, tensor in packed.items()}
    other[f"{owner}.gate_up_proj_scales"][2, 190, 1] += 1
    report = compared(b, write(tmp_path / "d", other, config))
    (found,) = (r for r in report.tensors if r.status != "same")
    assert found.name == f"{owner.removeprefix('model.')}.2.gate_up_proj.weight"
    assert found.changed_share is not None and float(found.changed_share) <= 32 / (192 * 96)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gptq", {"bits": 0}),
        ("gptq", {"bits": "4"}),
        ("gptq", {"bits": [4]}),
        ("awq", {"version": "gemv"}),
        ("awq", {"bits": 8}),
        ("deepseek", {"weight_block_size": ["x", 1]}),
        ("deepseek", {"weight_block_size": [0, 0]}),
        ("pack", group({"num_bits": 10**9})),
        ("float-block", group({"block_structure": {"a": 1}})),
        ("pack", {"config_groups": [1]}),
        ("pack", {"config_groups": {"g": {"targets": ["re:("], "weights": 3}}}),
    ],
)
def test_configs_that_make_no_sense(name: str, change: Any, tmp_path: Path) -> None:
    """Never a traceback; a weight that is not understood is not "same", and says why."""
    state, wanted, config = forged(name)
    a = write(tmp_path / "a", {f"{NAME}.weight": wanted})
    report = compared(a, write(tmp_path / "b", state, {**config, **change}))
    found = row(report)
    assert found.reason or found.max_abs == 0.0 or found.status == "shape"


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_an_older_packing_is_not_misread(bits: int, tmp_path: Path) -> None:
    """compressed-tensors 0.10 leaves the last bits of each word empty where no code fits in."""
    codes, per_word = torch.zeros(ROWS, COLUMNS), 32 // bits
    state = {
        f"{NAME}.weight_packed": torch.ones(ROWS, -(-COLUMNS // per_word), dtype=torch.int32),
        f"{NAME}.weight_scale": torch.ones(ROWS, 1),
        f"{NAME}.weight_shape": torch.tensor([ROWS, COLUMNS]),
    }
    a = write(tmp_path / "a", {f"{NAME}.weight": codes})
    found = row(compared(a, write(tmp_path / "b", state, group({"num_bits": bits}))))
    assert found.status == "unread" and "older packing" in str(found.reason)


def test_scales_that_are_powers_of_two_are_not_taken_for_numbers(tmp_path: Path) -> None:
    """As in mxfp8-quantized, where 32 columns have one scale."""
    codes = torch.ones(ROWS, 32)
    state = {
        f"{NAME}.weight": codes.to(torch.float8_e4m3fn),
        f"{NAME}.weight_scale": torch.full((ROWS, 1), 120, dtype=torch.uint8),
    }
    a = write(tmp_path / "a", {f"{NAME}.weight": codes})
    found = row(compared(a, write(tmp_path / "b", state, group({"num_bits": 8}))))
    assert found.status == "unread" and "powers of two" in str(found.reason)


@pytest.mark.parametrize("name", FORMATS)
def test_what_lies_beside_may_misfit(name: str, tmp_path: Path) -> None:
    state, wanted, config = forged(name)
    a = write(tmp_path / "a", {f"{NAME}.weight": wanted})
    for number, leaf in enumerate(state):
        if leaf.endswith((".weight", ".qweight", ".weight_packed", "input_scale")):
            continue
        wrong = {**state, leaf: torch.zeros(3, 5, 7).to(state[leaf].dtype)}
        found = row(compared(a, write(tmp_path / f"b{number}", wrong, config)))
        assert found.status in ("unread", "shape") and (found.reason or found.status == "shape")
        without = {n: t for n, t in state.items() if n != leaf}
        report = compared(a, write(tmp_path / f"c{number}", without, config))
        assert report.verdict != "same"
