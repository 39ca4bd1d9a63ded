"""The parts of an export that can be looked at in this process: presets, stand-ins, batches."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import ml_dtypes
import modelopt.torch.quantization as mtq
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ckptdiff.errors import ChildError, CkptdiffError, UsageError
from ckptdiff.events import Advanced
from ckptdiff.jobs.exporting import require_preset
from ckptdiff.records.export import Calibration
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime.export import drawing, standins
from ckptdiff.runtime.export.calibration import Loader, batches_of, labelled
from ckptdiff.runtime.export.loading import load
from ckptdiff.runtime.export.modules import Parts
from ckptdiff.runtime.export.presets import (
    block_size,
    method,
    narrowed,
    preset,
    sees_inputs,
    spared,
)
from ckptdiff.runtime.export.progress import Progress
from ckptdiff.runtime.export.quantizing import without_cache
from ckptdiff.runtime.export.standins import block_quant
from tests.exports_models import random_model

SAMPLE = Path(__file__).parents[2] / "samples/base"
OLD_FP8 = {
    "quant_cfg": {
        "*weight_quantizer": {"num_bits": (4, 3), "axis": None},
        "*input_quantizer": {"num_bits": (4, 3), "axis": None},
        "*lm_head*": {"enable": False},
        "*visual*": {"enable": False},
        "nn.BatchNorm1d": {"*": {"enable": False}},
        "default": {"enable": False},
    },
    "algorithm": "max",
}
LINEARS = ["model.visual.blocks.0.attn.proj", "model.layers.1.q_proj", "model.layers.10.q_proj"]


def is_enabled(config: dict[str, Any], quantizer: str) -> bool:
    """Whether a quantizer is enabled by a config in either style: the last match wins."""
    entries = config["quant_cfg"]
    pairs = entries.items() if isinstance(entries, dict) else [
        (entry["quantizer_name"], entry) for entry in entries if "parent_class" not in entry
    ]  # fmt: skip
    found = False
    for pattern, settings in pairs:
        if fnmatch.fnmatch(quantizer, pattern):
            found = settings.get("enable", True)
    return found


@pytest.mark.parametrize("first", [OLD_FP8, mtq.FP8_DEFAULT_CFG], ids=["dict", "list"])
@pytest.mark.parametrize("chosen", [LINEARS[:1], LINEARS[1:2], LINEARS[2:], LINEARS])
def test_a_narrowed_preset_enables_what_is_chosen(first: Any, chosen: list[str]) -> None:
    """What the preset excludes by name as well, and layers.1 without layers.10."""
    others = [name for name in [*LINEARS, "lm_head"] if name not in chosen]
    config = narrowed(first, chosen, others)
    assert type(config["quant_cfg"]) is type(first["quant_cfg"])
    for name in [*LINEARS, "lm_head"]:
        for kind in ("weight_quantizer", "input_quantizer"):
            assert is_enabled(config, f"{name}.{kind}") == (name in chosen)


def test_a_preset_is_not_changed_by_narrowing_it() -> None:
    before = str(mtq.FP8_DEFAULT_CFG)
    narrowed(preset("FP8_DEFAULT_CFG"), LINEARS[:1], LINEARS[1:])
    assert str(mtq.FP8_DEFAULT_CFG) == before


def test_mixed_presets_have_one_algorithm() -> None:
    fp8, nvfp4 = preset("FP8_DEFAULT_CFG"), preset("NVFP4_DEFAULT_CFG")
    config = narrowed(fp8, LINEARS, [], more={LINEARS[1]: nvfp4})
    (entry,) = [
        each for each in config["quant_cfg"]
        if each["quantizer_name"] == f"{LINEARS[1]}.*weight_quantizer"
    ]  # fmt: skip
    assert entry["cfg"]["num_bits"] == (2, 1)
    with pytest.raises(UsageError, match="different calibration algorithms"):
        narrowed(fp8, LINEARS, [], more={LINEARS[1]: preset("INT4_AWQ_CFG")})


def test_an_unknown_preset_lists_those_that_are_known() -> None:
    with pytest.raises(UsageError) as caught:
        preset("FP9_CFG")
    assert "FP8_DEFAULT_CFG" in caught.value.next_step


def mtq_of_cache_alone(preset: dict[str, Any]) -> bool:
    """Whether all that a preset enables are quantizers of keys and values."""
    named = [each["quantizer_name"] for each in preset["quant_cfg"] if each.get("enable", True)]
    return bool(named) and all("bmm" in name for name in named)


def test_every_preset_is_known_without_importing_modelopt() -> None:
    found = {name: getattr(mtq, name) for name in dir(mtq)}
    presets = [n for n, value in found.items() if isinstance(value, dict) and "quant_cfg" in value]
    assert len(presets) > 20
    caches = {name for name in presets if mtq_of_cache_alone(found[name])}
    assert {"FP8_KV_CFG", "NVFP4_AFFINE_KV_CFG"} <= caches
    for name in presets:
        if name in caches:
            with pytest.raises(UsageError, match="a KV cache and no weight"):
                require_preset(name)
        else:
            require_preset(name)
    with pytest.raises(UsageError, match="no preset FP9_CFG"):
        require_preset("FP9_CFG")


@pytest.mark.parametrize(
    ("name", "block", "algorithm", "inputs"),
    [
        ("FP8_DEFAULT_CFG", 1, "max", True),
        ("FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", 1, "max", False),
        ("INT8_WEIGHT_ONLY_CFG", 1, "max", False),
        ("INT4_AWQ_CFG", 128, "awq_lite", True),
        ("W4A8_AWQ_BETA_CFG", 128, "awq_lite", True),
        ("NVFP4_DEFAULT_CFG", 16, "max", True),
        ("MXFP8_DEFAULT_CFG", 32, "", False),
    ],
)
def test_what_a_preset_needs(name: str, block: int, algorithm: str, inputs: bool) -> None:
    config = preset(name)
    assert (block_size(config), method(config), sees_inputs(config)) == (block, algorithm, inputs)


def test_the_cache_is_that_of_the_text_alone() -> None:
    model = random_model("qwen2_5_vl", False, torch.float32)
    beside = without_cache(model)
    assert "model.visual" in beside
    assert not any("model.language_model".startswith(name) for name in beside)
    cache = preset("FP8_KV_CFG")
    config = narrowed(preset("FP8_DEFAULT_CFG"), [], [], kv_cache=cache, no_cache=beside)
    assert is_enabled(config, "model.language_model.layers.0.self_attn.k_bmm_quantizer")
    assert not is_enabled(config, "model.visual.blocks.0.attn.k_bmm_quantizer")


def test_keys_find_the_live_modules() -> None:
    model = random_model("qwen3_moe", False, torch.float32)
    parts = Parts(model)
    keys = [f"layers.1.mlp.experts.{n}.{p}_proj" for n in range(4) for p in ("gate", "up", "down")]
    assert parts.chosen([*keys, "layers.0.self_attn.q_proj"]) == (
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.experts",
    )
    with pytest.raises(UsageError, match=r"no module for layers\.9\.q_proj"):
        parts.chosen(["layers.9.q_proj"])


def reference_fp4(values: np.ndarray[Any, Any], block: int, step: float) -> np.ndarray[Any, Any]:
    """E2M1 with E4M3 scales over `step`, by ml_dtypes in float64."""
    blocks = values.astype(np.float64).reshape(-1, block)
    scale = np.abs(blocks).max(1, keepdims=True) / (6 * step)
    scale = np.clip(scale, 2.0**-9, 448).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)
    scale = scale.astype(np.float64) * step
    codes = (blocks / scale).astype(np.float32).astype(ml_dtypes.float4_e2m1fn)
    return np.asarray((codes.astype(np.float64) * scale).reshape(values.shape))


def reference_mx(values: np.ndarray[Any, Any], kind: Any, largest: float) -> np.ndarray[Any, Any]:
    blocks = values.astype(np.float64).reshape(-1, 32)
    scale = 2.0 ** np.ceil(np.log2(np.abs(blocks).max(1, keepdims=True) / largest))
    return np.asarray(
        ((blocks / scale).astype(kind).astype(np.float64) * scale).reshape(values.shape)
    )


def test_fp4_of_the_stand_in_is_what_ml_dtypes_rounds_to() -> None:
    values = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    amax = float(np.abs(values).max())
    found = block_quant(torch.from_numpy(values), 16, torch.tensor(amax), None, (2, 1), (4, 3))
    wanted = reference_fp4(values, 16, amax / (6 * 448))
    assert np.allclose(found.numpy(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("bits", "kind", "largest"),
    [((2, 1), ml_dtypes.float4_e2m1fn, 6.0), ((4, 3), ml_dtypes.float8_e4m3fn, 448.0)],
)
def test_mx_of_the_stand_in_is_what_ml_dtypes_rounds_to(
    bits: tuple[int, int], kind: Any, largest: float
) -> None:
    values = np.random.default_rng(1).standard_normal((32, 64)).astype(np.float32)
    found = block_quant(torch.from_numpy(values), 32, None, None, bits, (8, 0))
    assert np.array_equal(found.numpy(), reference_mx(values, kind, largest).astype(np.float32))


def test_the_stand_in_takes_partial_blocks_zeros_and_gradients() -> None:
    values = torch.zeros(3, 20)
    values[1] = torch.linspace(-2, 2, 20)
    values.requires_grad_()
    found = block_quant(values, 16, None, None, (2, 1), (4, 3))
    assert found.shape == values.shape and found.isfinite().all()
    assert not found[0].any()
    found.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, torch.ones_like(values))


def test_drawn_images_are_always_the_same(tmp_path: Path) -> None:
    first, again = tmp_path / "a", tmp_path / "b"
    for folder in (first, again):
        folder.mkdir()
        drawing.drawn(folder)
    images = sorted(path.name for path in first.iterdir())
    assert len(images) == drawing.COUNT
    contents = [(first / name).read_bytes() for name in images]
    assert contents == [(again / name).read_bytes() for name in images]
    assert len(set(contents)) == drawing.COUNT


def test_batches_are_rows_of_one_length(tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(SAMPLE)
    (image, *_) = drawing.drawn(tmp_path)
    rows = (Prompt("one two three"), Prompt("a"), image, Prompt("one two three"))
    found = batches_of(Calibration(rows, "test", 512, 0), SAMPLE, model)
    assert [len(batch["input_ids"]) for batch in found] == [1, 2, 1]
    assert all(batch["attention_mask"].all() for batch in found)
    seen = labelled(found[-1])
    token = model.config.image_token_id
    assert (found[-1]["input_ids"] == token).any()
    assert torch.equal(seen["labels"] == -100, found[-1]["input_ids"] == token)


def test_a_row_that_is_no_text_is_named_by_its_number_in_the_file() -> None:
    """Rows are drawn in another order than they are read."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(SAMPLE)
    rows = (Prompt("good"), Prompt("\ud800"))
    with pytest.raises(UsageError, match="prompt 40"):
        batches_of(Calibration(rows, "rows.txt", 512, 0, (7, 40)), SAMPLE, model)


def test_a_loader_says_when_its_batches_are_taken() -> None:
    events: list[Any] = []
    batches = [{"input_ids": torch.tensor([[n]])} for n in range(2)]
    loader = Loader(batches, ["calibrate", "score"], Progress(events.append))
    for _ in range(2):
        for _, _ in zip(range(2), loader, strict=False):
            pass
    said = [(type(event).__name__, event.stage) for event in events]
    one = [("Started", "calibrate"), ("Advanced", "calibrate"), ("Advanced", "calibrate"),
           ("Finished", "calibrate")]  # fmt: skip
    assert said == [*one, *((kind, "score") for kind, _ in one)]


def test_a_stage_inside_another_has_its_own_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what fails is told of the stage in which it did, whatever closes afterwards."""
    now = [0.0]
    monkeypatch.setattr("ckptdiff.runtime.export.progress.time.monotonic", lambda: now[0])
    progress = Progress(lambda event: None)

    def run(loader: Loader) -> None:
        for _ in loader:
            now[0] += 1
            raise ValueError("odd")

    with progress.during("search", None, "modules"):
        now[0] += 1
        with progress.during("score", 2, "batches"):
            now[0] += 2
        assert progress.stage == "search"
        now[0] += 4
    now[0] += 8
    assert progress.seconds == {"search": 5.0, "score": 2.0}
    with pytest.raises(ValueError, match="odd"), progress.during("search", None, "modules"):
        run(Loader([{}], ["calibrate"], progress))
    assert progress.stage == "calibrate"
    assert progress.seconds == {"search": 5.0, "score": 2.0, "calibrate": 1.0}


def test_a_model_is_loaded_byte_by_byte() -> None:
    """The bytes are those of the file, in whatever dtype they are wanted."""
    events: list[Any] = []
    load(SAMPLE, "F32", False, Progress(events.append))
    whole = sum(tensor.nbytes for tensor in load_file(SAMPLE / "model.safetensors").values())
    steps = [event for event in events if isinstance(event, Advanced)]
    assert len(steps) > 10 and sum(step.amount for step in steps) == whole
    assert max(step.amount for step in steps) < whole / 5
    assert events[0].stage == "load" and events[0].total >= whole


class FakeChannel:
    def receive(self) -> dict[str, Any]:
        calibration = {"rows": [], "source": "", "length": 1, "seed": 0}
        return {"work": "quantize", "scheme": "", "base": "", "target": "", "presets": [],
                "dtype": "BF16", "calibration": calibration}  # fmt: skip

    def sink(self, event: object) -> None:
        pass


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ModelOpt that cannot write."""
    from ckptdiff.runtime.export import __main__ as child
    from ckptdiff.runtime.export import exporting

    def too_much(order: object, progress: Progress) -> None:
        with progress.during("write", None, "bytes"):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(exporting, "carry_out", too_much)
    with pytest.raises(CkptdiffError) as caught:
        child.main(FakeChannel())  # type: ignore[arg-type]
    assert caught.value.message == "the disk is full (in the stage write)"
    assert "--out" in caught.value.next_step and caught.value.exit_code == 2


def test_memory_that_ran_out_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptdiff.runtime.export import __main__ as child
    from ckptdiff.runtime.export import exporting

    def too_big(order: object, progress: Progress) -> None:
        with progress.during("calibrate", None, "batches"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(exporting, "carry_out", too_big)
    with pytest.raises(ChildError) as caught:
        child.main(FakeChannel())  # type: ignore[arg-type]
    assert "too little memory" in caught.value.message and "calibrate" in caught.value.message
    assert "--calib-length" in caught.value.next_step and caught.value.exit_code == 4


def test_a_search_leaves_heads_and_routers_alone_and_takes_towers() -> None:
    names = ["lm_head", "model.layers.0.mlp.gate", "model.visual.blocks.0.attn.qkv",
             "model.layers.0.mlp.gate_proj"]  # fmt: skip
    assert spared(preset("FP8_DEFAULT_CFG"), names) == ("lm_head", "model.layers.0.mlp.gate")


def test_a_kernel_that_fails_is_replaced_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unbuildable(*_: object) -> torch.Tensor:
        raise RuntimeError("nvcc is not there")

    module = standins.tensor_quantizer
    monkeypatch.setattr(module, "dynamic_block_quant", unbuildable)
    monkeypatch.setattr(standins, "replaced", [])
    standins.install(cpu=False)
    values = torch.linspace(-1, 1, 32).reshape(2, 16)
    found = module.dynamic_block_quant(values, 16, None, None, (2, 1), (4, 3))
    assert torch.equal(found, block_quant(values, 16, None, None, (2, 1), (4, 3)))
    assert standins.replaced == ["RuntimeError of ModelOpt's kernel"]


def test_a_kernel_without_memory_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> torch.Tensor:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    module = standins.tensor_quantizer
    monkeypatch.setattr(module, "dynamic_block_quant", full)
    monkeypatch.setattr(standins, "replaced", [])
    standins.install(cpu=False)
    with pytest.raises(RuntimeError, match="out of memory"):
        module.dynamic_block_quant(torch.ones(2, 16), 16)
    assert standins.replaced == []
