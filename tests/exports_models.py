"""Tiny random models for the export corpus, and how AutoQuant groups their layers.

The dimensions are the smallest that still reach every corner of the formats: several blocks of
128, 32 and 16; key and value projections with 64 rows and a vision tower with 80, 112, 240 and
320 (partial blocks of 128); everything that AWQ packs a multiple of 128, because ModelOpt refuses
partial groups there. The experts are multiples of 128 too: ModelOpt cannot split the block scales
of a fused gate and up projection anywhere else.

torch and transformers are imported by the functions that need them: only child processes do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ARCHS = ("llama", "qwen2_5_vl", "qwen3_moe")
# Built for single tests: norms that multiply by one more than their weight, and attention and MLP
# side by side behind one norm.
MORE_ARCHS = ("gemma2", "cohere")
LAYERS = 3
VISION_BLOCKS = 2
PATCH_EMBED = "visual.patch_embed.proj"

_TEXT = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_VISION = {
    "depth": VISION_BLOCKS,
    "hidden_size": 80,
    "intermediate_size": 112,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 32,
    "fullatt_block_indexes": [1],
    "out_hidden_size": _TEXT["hidden_size"],
}
_IMAGE_TOKEN, _FIRST_TEXT_TOKEN = 3, 8
_GRID = (1, 4, 4)


@dataclass(frozen=True)
class Recipe:
    """One line of a sensitivity ranking: the linears that AutoQuant decides on together.

    Names are those of real manifests. ModelOpt's live modules carry `live_prefix` in front.
    """

    leader: str
    members: tuple[str, ...]
    live_prefix: str

    @property
    def name(self) -> str:
        """The name of the group in rankings and coverage manifests."""
        return f"{self.leader}.quant_recipe"

    @property
    def live_members(self) -> tuple[str, ...]:
        """The members as modules of the loaded model."""
        return tuple(self.live_prefix + member for member in self.members)


def recipes(arch: str, visual: bool) -> tuple[Recipe, ...]:
    """The recipes of an architecture in model order; `visual` adds the vision tower's."""
    prefix = "model." if arch == "qwen2_5_vl" else ""
    groups = [*(_vision_groups() if visual and prefix else ()), *_text_groups(arch)]
    return tuple(Recipe(group[0], group, prefix) for group in groups)


def _text_groups(arch: str) -> Iterator[tuple[str, ...]]:
    root = "language_model" if arch == "qwen2_5_vl" else "model"
    for index in range(LAYERS):
        layer = f"{root}.layers.{index}"
        yield tuple(f"{layer}.self_attn.{name}_proj" for name in "qkv")
        yield (f"{layer}.self_attn.o_proj",)
        if arch == "qwen3_moe":
            yield (f"{layer}.mlp.experts",)
        else:
            yield (f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj")
            yield (f"{layer}.mlp.down_proj",)


def _vision_groups() -> Iterator[tuple[str, ...]]:
    yield (PATCH_EMBED,)
    for index in range(VISION_BLOCKS):
        block = f"visual.blocks.{index}"
        yield (f"{block}.attn.qkv",)
        yield (f"{block}.attn.proj",)
        yield (f"{block}.mlp.gate_proj", f"{block}.mlp.up_proj")
        yield (f"{block}.mlp.down_proj",)
    yield ("visual.merger.mlp.0",)
    yield ("visual.merger.mlp.2",)


def random_model(arch: str, tied: bool, dtype: torch.dtype) -> PreTrainedModel:
    """A random model, the same numbers for every dtype before the cast.

    Norm weights and biases are drawn too: with the ones and zeros of a fresh model AWQ and
    SmoothQuant would find nothing to smooth, and a folded norm would be hard to tell from base.
    """
    import torch

    torch.manual_seed((*ARCHS, *MORE_ARCHS).index(arch))
    makers = {
        "llama": _llama, "qwen2_5_vl": _qwen2_5_vl, "qwen3_moe": _qwen3_moe, "gemma2": _gemma2,
        "cohere": _cohere,
    }  # fmt: skip
    model = makers[arch](tied)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.5).exp_()
    return model.to(dtype).eval()


def _llama(tied: bool) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_TEXT, tie_word_embeddings=tied))


def _gemma2(tied: bool) -> PreTrainedModel:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**_TEXT, head_dim=64, tie_word_embeddings=tied))


def _cohere(tied: bool) -> PreTrainedModel:
    from transformers import CohereConfig, CohereForCausalLM

    return CohereForCausalLM(CohereConfig(**_TEXT, tie_word_embeddings=tied))


def _qwen3_moe(tied: bool) -> PreTrainedModel:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
    config = Qwen3MoeConfig(**_TEXT, **experts, head_dim=64, tie_word_embeddings=tied)
    return Qwen3MoeForCausalLM(config)


def _qwen2_5_vl(tied: bool) -> PreTrainedModel:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]}
    config = Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_parameters": rope, "tie_word_embeddings": tied},
        vision_config=_VISION,
        image_token_id=_IMAGE_TOKEN,
        video_token_id=4,
        vision_start_token_id=5,
        vision_end_token_id=6,
        tie_word_embeddings=tied,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def batch(arch: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random calibration input, the same at every call; Qwen2.5-VL also sees an image a row.

    One batch, because AWQ repeats its whole search for each.
    """
    import torch

    rows, length = 4, 24
    generator = torch.Generator().manual_seed(0)
    shape = (rows, length)
    ids = torch.randint(_FIRST_TEXT_TOKEN, _TEXT["vocab_size"], shape, generator=generator)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if arch != "qwen2_5_vl":
        return text
    patches = math.prod(_GRID)
    ids[:, 2 : 2 + patches // _VISION["spatial_merge_size"] ** 2] = _IMAGE_TOKEN
    features = 3 * _VISION["temporal_patch_size"] * _VISION["patch_size"] ** 2
    pixels = torch.randn(rows * patches, features, generator=generator)
    return text | {
        "pixel_values": pixels.to(dtype),
        "image_grid_thw": torch.tensor([_GRID] * rows),
        "mm_token_type_ids": (ids == _IMAGE_TOKEN).int(),
    }
