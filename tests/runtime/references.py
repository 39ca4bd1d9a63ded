"""Models whose weights were set from somebody else's dequantisation.

A checkpoint is written out in float32 with ModelOpt's own tensors as the judge of what codes mean,
and transformers loads that as it loads any other. Nothing of ckptdiff takes part.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from modelopt.torch.export import quant_utils
from modelopt.torch.quantization import qtensor
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

SCALES = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", "k_scale", "v_scale")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, by safetensors' own reader."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def dequantised(scheme: Path, fmt: str) -> dict[str, torch.Tensor]:
    """The weights and all else that an export holds, in float32; scales are gone."""
    stored = tensors(scheme)
    found = {}
    for name, tensor in stored.items():
        module, _, leaf = name.rpartition(".")
        if leaf in SCALES:
            continue
        if leaf == "weight" and f"{module}.weight_scale" in stored:
            beside = {s: stored.get(f"{module}.{s}") for s in SCALES}
            found[name] = weight(fmt, tensor, beside)
        else:
            found[name] = tensor.float()
    return found


def weight(fmt: str, codes: torch.Tensor, beside: dict[str, torch.Tensor | None]) -> torch.Tensor:
    """What ModelOpt makes of one weight, float32 [O, I]."""
    scale, scale_2 = beside["weight_scale"], beside["weight_scale_2"]
    assert scale is not None
    rows, columns = codes.shape
    kind = fmt
    if fmt == "mixed":
        kind = "nvfp4" if codes.dtype == torch.uint8 else "fp8"
    if kind in ("fp8", "fp8_kv"):
        found = _fp8(codes).dequantize(torch.float32, scale=scale)
    elif kind == "fp8_pcpt":
        found = _fp8(codes).dequantize(torch.float32, scale=scale[:, None])
    elif kind == "fp8_pb_wo":
        grid = scale.reshape(-(-rows // 128), -(-columns // 128))
        found = _fp8(codes).dequantize(torch.float32, scale=grid, block_sizes={-1: 128, -2: 128})
    elif kind in ("int8", "int8_sq", "int8_wo"):
        found = codes.float() * scale[:, None]
    elif kind in ("int4_awq", "w4a8_awq"):
        found = _int4(codes, scale)
    elif kind in ("nvfp4", "w4a16_nvfp4", "nvfp4_awq", "w4a8_nvfp4_fp8"):
        block = 2 * columns // scale.shape[1]
        whole = qtensor.NVFP4QTensor((rows, 2 * columns), torch.float32, codes)
        found = whole.dequantize(
            torch.float32, scale=scale, double_scale=scale_2, block_sizes={-1: block}
        )
    elif kind == "mxfp8":
        found = qtensor.MXFP8QTensor((rows, columns), torch.float32, codes).dequantize(
            torch.float32, scale=scale
        )
    elif kind in ("mxfp4", "w4a8_mxfp4_fp8"):
        found = qtensor.MXFP4QTensor((rows, 2 * columns), torch.float32, codes).dequantize(
            torch.float32, scale=scale, block_sizes={-1: 32}
        )
    else:
        raise AssertionError(fmt)
    factor = beside["pre_quant_scale"]
    return found if factor is None else found * factor.float()


def _fp8(codes: torch.Tensor) -> qtensor.FP8QTensor:
    return qtensor.FP8QTensor(codes.shape, torch.float32, codes)


def _int4(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """ModelOpt only packs this format: what it packs into the same codes is the weight."""
    nibbles = torch.stack([codes & 15, codes >> 4], 1).reshape(-1, codes.shape[1]).int()
    values = torch.where(nibbles > 7, nibbles - 16, nibbles).float()
    group = codes.shape[1] // scale.shape[1]
    found = values * scale.repeat_interleave(group, 1)
    packed = quant_utils.pack_int4_in_uint8(found, scale, group)
    assert torch.equal(packed, codes)
    return found


def reference_model(scheme: Path, fmt: str, folder: Path) -> PreTrainedModel:
    """The dequantised export as transformers itself loads it, float32 on the CPU."""
    return written_model(dequantised(scheme, fmt), scheme, folder)


def written_model(state: dict[str, torch.Tensor], like: Path, folder: Path) -> PreTrainedModel:
    """A model of these tensors, named as on disk, with the config of `like`."""
    config = transformers.AutoConfig.from_pretrained(like)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)
    kept = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (architecture,) = config.architectures
    kind = getattr(transformers, architecture)
    return kind.from_pretrained(folder, dtype=torch.float32).eval()
