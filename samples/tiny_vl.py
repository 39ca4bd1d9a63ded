"""A Qwen2.5-VL of 554,752 parameters: its configuration, tokenizer, processor and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2TokenizerFast,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

VOCABULARY = 512
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The special tokens are the last ids. Every id in a config must lie inside the vocabulary: the
# defaults (151,6xx) fail much later, as index errors or as "tokens: 0, features: 16".
TOKEN_IDS = {name: VOCABULARY - len(SPECIAL_TOKENS) + i for i, name in enumerate(SPECIAL_TOKENS)}
PATCH, MERGE, TEMPORAL = 8, 2, 2
ROPE_THETA, MROPE_SECTION = 10_000.0, [2, 3, 3]
PROMPT = "Describe the picture."
# Qwen2's rule for cutting text into words before merging bytes.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string -%}{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


def new_config() -> Qwen2_5_VLConfig:
    """The architecture: six text layers of width 96, one vision block of width 32."""
    ids = TOKEN_IDS
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 96,
        "intermediate_size": 176,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROPE_THETA,
            "mrope_section": MROPE_SECTION,
        },
        "tie_word_embeddings": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 96,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "window_size": 32,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def new_model() -> Qwen2_5_VLForConditionalGeneration:
    """A model with fresh weights, drawn from torch's global generator."""
    model = Qwen2_5_VLForConditionalGeneration(new_config())
    # The default scale of 0.02 leaves a single narrow block nearly idle beside its residual
    # stream; it would stay so, and its layers would all rank as insensitive.
    for module in model.model.visual.blocks.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_normal_(module.weight, gain=2.0)
    return model


def new_tokenizer(texts: Iterable[str]) -> Qwen2TokenizerFast:
    """Train a byte-level BPE whose last seven ids are Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )


def new_image_processor() -> Qwen2VLImageProcessorPil:
    """The processor without torchvision; 64 x 64 pixels become 16 image tokens."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=TEMPORAL,
        min_pixels=32 * 32,
        max_pixels=128 * 128,
    )


def load_processors(base: Path) -> tuple[Qwen2TokenizerFast, Qwen2VLImageProcessorPil]:
    """The tokenizer and image processor that were saved with a checkpoint."""
    return (
        Qwen2TokenizerFast.from_pretrained(base),
        Qwen2VLImageProcessorPil.from_pretrained(base),
    )


def load_model(base: Path) -> Qwen2_5_VLForConditionalGeneration:
    """A saved model in the dtype it is quantized in."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.bfloat16)


def _dialogue(tokenizer: Qwen2TokenizerFast, image_tokens: int, caption: str) -> tuple[str, str]:
    """The prompt, with one pad per image token, and the answer that follows it."""
    content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return prompt.replace("<|image_pad|>", "<|image_pad|>" * image_tokens), f"{caption}<|im_end|>"


def caption_batch(
    tokenizer: Qwen2TokenizerFast,
    image_processor: Qwen2VLImageProcessorPil,
    pairs: Sequence[tuple[Image.Image, str]],
) -> dict[str, torch.Tensor]:
    """Model inputs for captioned pictures, padded on the right; only captions carry a loss."""
    images = image_processor(images=[picture for picture, _ in pairs], return_tensors="pt")
    counts = (images["image_grid_thw"].prod(dim=1) // MERGE**2).tolist()
    rows, labels = [], []
    for count, (_, caption) in zip(counts, pairs, strict=True):
        prompt, answer = (tokenizer(t)["input_ids"] for t in _dialogue(tokenizer, count, caption))
        rows.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pad = torch.nn.utils.rnn.pad_sequence
    input_ids = pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    mask = pad([torch.ones_like(row) for row in rows], batch_first=True)
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        # Without these the model runs too, silently, with plain positions for the image.
        "mm_token_type_ids": (input_ids == TOKEN_IDS["<|image_pad|>"]).int(),
        "pixel_values": images["pixel_values"],
        "image_grid_thw": images["image_grid_thw"],
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }
