"""`load_model` on what other exporters write: compressed-tensors, GPTQ, AWQ, DeepSeek, GPT-OSS.

The codes are random. What they mean is said by compressed-tensors and transformers themselves,
and for GPTQ, AWQ and DeepSeek, whose kernels need a GPU, by their formula, element by element.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from ckptdiff.errors import UsageError
from ckptdiff.runtime import load_model
from tests.runtime.references import written_model

RNG = np.random.default_rng(11)
State = dict[str, torch.Tensor]
# (tensors beside the module's name, the weight that they stand for)
Forge = Callable[[int, int], tuple[State, torch.Tensor]]


def llama() -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def uniform(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(1e-3, 0.1, shape).astype("f4")).to(dtype)


def integers(low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.integers(low, high, shape))


def e4m3(rows: int, columns: int) -> torch.Tensor:
    codes = RNG.integers(0, 256, (rows, columns)).astype("u1")
    codes[codes & 0x7F == 0x7F] = 1
    return torch.from_numpy(codes).view(torch.float8_e4m3fn)


def decompressed(name: str, arguments: dict[str, Any], state: State) -> tuple[State, torch.Tensor]:
    """What compressed-tensors makes of a module's tensors."""
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    compressor = BaseCompressor.get_value_from_registry(name)
    weight = compressor.decompress(dict(state), scheme)["weight"]
    return state, weight.float()


FLOAT_BLOCK = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [64, 64]}
FLOAT = {"num_bits": 8, "type": "float", "strategy": "channel"}
INT = {"num_bits": 8, "strategy": "channel", "symmetric": False}
PACKED = {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}


def float_block(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    scale = uniform(rows // 64, columns // 64)
    state = {"weight": e4m3(rows, columns), "weight_scale": scale, "input_scale": torch.ones(1)}
    return decompressed("float-quantized", FLOAT_BLOCK, state)


def float_channel(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    state = {"weight": e4m3(rows, columns), "weight_scale": uniform(rows, 1)}
    return decompressed("float-quantized", FLOAT, state)


def int_channel(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    state = {
        "weight": integers(-128, 128, rows, columns).to(torch.int8),
        "weight_scale": uniform(rows, 1),
        "weight_zero_point": integers(-128, 128, rows, 1).to(torch.int8),
    }
    return decompressed("int-quantized", INT, state)


def int_ordered(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    """Of `weight_g_idx` compressed-tensors says that it tells the group of each column."""
    codes, scale = integers(-128, 128, rows, columns), uniform(rows, columns // 32)
    order = torch.from_numpy(RNG.permutation(np.arange(columns) // 32).astype(np.int32))
    state = {"weight": codes.to(torch.int8), "weight_scale": scale, "weight_g_idx": order}
    return state, codes.float() * scale[:, order.long()]


def packed(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    zero = integers(-8, 8, rows, columns // 32).to(torch.int8)
    state = {
        "weight_packed": pack_to_int32(integers(-8, 8, rows, columns).to(torch.int8), 4),
        "weight_scale": uniform(rows, columns // 32),
        "weight_zero_point": pack_to_int32(zero, 4, packed_dim=0),
        "weight_shape": torch.tensor([rows, columns]),
    }
    return decompressed("pack-quantized", PACKED, state)


def nvfp4(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    state = {
        "weight_packed": integers(0, 256, rows, columns // 2).to(torch.uint8),
        "weight_scale": (e4m3(rows, columns // 16).view(torch.uint8) & 0x7F).view(
            torch.float8_e4m3fn
        ),
        "weight_global_scale": torch.tensor([128.0]),  # a power of two: their BF16 is exact
    }
    return decompressed("nvfp4-pack-quantized", NVFP4, state)


def words(values: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """[R, C] -> int32 [R, C * bits / 32], the first value lowest, or in a given order."""
    count = 32 // bits
    order = order or tuple(range(count))
    grouped = values.astype(np.uint32).reshape(len(values), -1, count)
    whole = np.zeros(grouped.shape[:2], np.uint32)
    for place, source in enumerate(order):
        whole |= grouped[:, :, source] << np.uint32(bits * place)
    return torch.from_numpy(whole.view(np.int32))


def gptq(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    values, zeros = RNG.integers(0, 16, (columns, rows)), RNG.integers(0, 16, (columns // 32, rows))
    scales, group = uniform(columns // 32, rows, dtype=torch.float16), np.arange(columns) // 32
    order = RNG.permutation(group)
    weight = (values - zeros[order]) * scales.numpy().astype("f4")[order]
    state = {
        "qweight": words(values.T, 4).T.contiguous(),
        "qzeros": words((zeros - 1) % 16, 4),
        "scales": scales,
        "g_idx": torch.from_numpy(order.astype(np.int32)),
    }
    return state, torch.from_numpy(weight.T.astype("f4"))


def awq(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    values, zeros = RNG.integers(0, 16, (columns, rows)), RNG.integers(0, 16, (columns // 32, rows))
    scales, group = uniform(columns // 32, rows, dtype=torch.float16), np.arange(columns) // 32
    weight = (values - zeros[group]) * scales.numpy().astype("f4")[group]
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    state = {
        "qweight": words(values, 4, order),
        "qzeros": words(zeros, 4, order),
        "scales": scales,
    }
    return state, torch.from_numpy(weight.T.astype("f4"))


def deepseek(rows: int, columns: int) -> tuple[State, torch.Tensor]:
    codes, scale = e4m3(rows, columns), uniform(-(-rows // 128), -(-columns // 128))
    wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :columns]
    return {"weight": codes, "weight_scale_inv": scale}, codes.float() * wide


def group(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": arguments}},
    }


FORMATS: dict[str, tuple[Forge, dict[str, Any]]] = {
    "float-block": (float_block, group(FLOAT_BLOCK)),
    "float-channel": (float_channel, group(FLOAT)),
    "int": (int_channel, group(INT)),
    "int-ordered": (int_ordered, group({"num_bits": 8, "strategy": "group", "group_size": 32})),
    "pack": (packed, group(PACKED)),
    "nvfp4": (nvfp4, group(NVFP4)),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "version": "gemm"}),
    "deepseek": (deepseek, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
}


def write(path: Path, model: transformers.PreTrainedModel, state: State, config: Any) -> Path:
    path.mkdir()
    model.config.save_pretrained(path)
    document = json.loads((path / "config.json").read_text())
    document |= {"architectures": [type(model).__name__], "quantization_config": config}
    (path / "config.json").write_text(json.dumps(document))
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_what_their_exporter_says(name: str, tmp_path: Path) -> None:
    forge, config = FORMATS[name]
    model = llama()
    state: State = {}
    wanted: State = {}
    for key, tensor in model.state_dict().items():
        module, _, leaf = key.rpartition(".")
        if "_proj" in module and leaf == "weight":
            found, wanted[key] = forge(*tensor.shape)
            state |= {f"{module}.{end}": t.contiguous() for end, t in found.items()}
        else:
            state[key] = wanted[key] = tensor.clone()
    path = write(tmp_path / "quantized", model, state, config)
    ours = load_model(path, dtype="float32", device="cpu").state_dict()
    theirs = written_model(wanted, path, tmp_path / "wanted").state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        # compressed-tensors multiplies in the dtype of the scale, which is float32 here.
        assert torch.equal(ours[key], tensor), key


def test_experts_of_gpt_oss(tmp_path: Path) -> None:
    config = transformers.GptOssConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_local_experts=3,
        num_experts_per_tok=2, layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=False, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GptOssForCausalLM(config)
    state: State = {}
    wanted: State = {}
    for key, tensor in model.state_dict().items():
        if key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, inputs, outputs = tensor.shape
            blocks = integers(0, 256, experts, outputs, inputs // 32, 16).to(torch.uint8)
            scales = integers(110, 130, experts, outputs, inputs // 32).to(torch.uint8)
            state |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
            wanted[key] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        else:
            state[key] = wanted[key] = tensor.clone()
    path = write(tmp_path / "quantized", model, state, {"quant_method": "mxfp4"})
    ours = load_model(path, dtype="float32", device="cpu").state_dict()
    assert ours.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(ours[key], tensor), key


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    model = llama()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    path = write(tmp_path / "unknown", model, state, {"quant_method": "hqq"})
    with pytest.raises(UsageError, match="quantized by hqq, which is not known"):
        load_model(path)
    up = "model.layers.0.mlp.up_proj"
    codes = {**state, f"{up}.weight": e4m3(256, 128)}
    path = write(tmp_path / "no-scale", model, codes, group(FLOAT))
    with pytest.raises(UsageError, match=rf"{up}\.weight is quantized and comes without"):
        load_model(path)
    stray = {**state, f"{up}.weight_scale": uniform(256, 1)}
    path = write(tmp_path / "stray", model, stray, group(FLOAT))
    with pytest.raises(UsageError, match="belongs to no quantized weight"):
        load_model(path)
    with pytest.raises(UsageError, match="for exports of ModelOpt"):
        load_model(path, raw=True)
