"""Prompts as a model takes them: token ids, and pixels where a prompt has images.

Text goes through the tokenizer as it is, messages and images through the chat template. The full
processor of a vision-language model is used where it loads; it needs torchvision for videos, so
elsewhere its image processor and the tokenizer do the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoProcessor, AutoTokenizer, PretrainedConfig

from ckptdiff.errors import CapabilityError, CkptdiffError, UsageError
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime.failures import first_line, is_out_of_memory
from ckptdiff.runtime.own_code import own_code, refuses_own_code
from ckptdiff.sources.local import open_regular

# What comes with a token `<kind>_token_id` of the config.
_SHOWN = {"image": "pixel_values", "video": "pixel_values_videos"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt: what has an element a token, [L] each, and what its images add."""

    sequences: dict[str, torch.Tensor]
    media: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return len(self.sequences["input_ids"])

    def stacks_with(self, other: Encoded) -> bool:
        """Whether the two can be rows of one batch."""
        return (
            self.sequences.keys() == other.sequences.keys()
            and self.media.keys() == other.media.keys()
            and all(v.shape[1:] == other.media[k].shape[1:] for k, v in self.media.items())
        )


class Encoder:
    """The tokenizer of one checkpoint, and its processor once a prompt has an image."""

    def __init__(
        self,
        path: Path,
        config: PretrainedConfig,
        max_length: int | None,
        trust_remote_code: bool = False,
    ) -> None:
        self._path = path
        # Never left open: transformers would ask on the standard input of this process.
        self._loading = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        self._config = config
        self._max_length = max_length
        self._processor: Any = None
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, **self._loading)
        except Exception as error:  # a tokenizer's files can be broken in any way
            if refuses_own_code(error):
                raise own_code("tokenizer", path) from error
            raise UsageError(
                f"the tokenizer of {path} cannot be loaded: {first_line(error)}",
                "Put the base's tokenizer files beside the weights.",
            ) from error

    @property
    def pad(self) -> int:
        """Any id will do: what is padded is masked."""
        found = self.tokenizer.pad_token_id
        return 0 if found is None else int(found)

    def encode(self, prompts: Sequence[Prompt], numbers: Sequence[int] = ()) -> tuple[Encoded, ...]:
        """Raises `UsageError` for a prompt that cannot be encoded, naming it by its number: those
        in `numbers` for the first ones, its place for any other."""
        text = self._config.get_text_config()
        vocabulary, longest = text.vocab_size, getattr(text, "max_position_embeddings", None)
        encoded = []
        named = (*numbers, *range(len(numbers) + 1, len(prompts) + 1))
        for number, prompt in zip(named, prompts, strict=True):
            found = self._images(prompt, number) if prompt.images else self._text(prompt, number)
            self._require_seen(found, number)
            if not found.length and (prompt.text.strip() or prompt.messages):
                # transformers makes an empty tokenizer where it finds no files of one.
                raise UsageError(
                    f"the tokenizer of {self._path} gives no token for prompt {number}",
                    "Put the base's tokenizer files beside the weights.",
                )
            if not found.length:
                raise UsageError(f"prompt {number} has no tokens", "Give it some text.")
            if longest is not None and found.length > longest:
                raise UsageError(
                    f"prompt {number} has {found.length:,} tokens, and the model takes {longest:,}",
                    f"Cut prompts to {longest} by --max-length, calibration rows by "
                    "--calib-length; images are never cut.",
                )
            highest = int(found.sequences["input_ids"].max())
            if highest >= vocabulary:
                raise UsageError(
                    f"prompt {number} has token {highest:,}, and the model a vocabulary of "
                    f"{vocabulary:,}",
                    f"The tokenizer in {self._path} belongs to another model.",
                )
            encoded.append(found)
        return tuple(encoded)

    def _require_seen(self, found: Encoded, number: int) -> None:
        """A model takes the token that stands for an image for a word where it gets no pixels."""
        ids = found.sequences["input_ids"]
        for kind, pixels in _SHOWN.items():
            token = getattr(self._config, f"{kind}_token_id", None)
            if token is not None and pixels not in found.media and bool((ids == token).any()):
                raise UsageError(
                    f"prompt {number} names an image or a video that it does not come with",
                    'Give the files of images by "images"; videos cannot be given.',
                )

    def _text(self, prompt: Prompt, number: int) -> Encoded:
        text = self._templated(prompt, number) if prompt.messages else prompt.text
        try:
            ids = self.tokenizer(text, add_special_tokens=not prompt.messages)["input_ids"]
        except Exception as error:  # such as half a surrogate pair, which is no text
            raise UsageError(
                f"the tokenizer of {self._path} does not take prompt {number}: {first_line(error)}",
                "Give the prompt as text in UTF-8.",
            ) from error
        return Encoded({"input_ids": torch.tensor(ids[: self._max_length], dtype=torch.long)})

    def _templated(self, prompt: Prompt, number: int) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                _conversation(prompt), tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise what they like
            raise UsageError(
                f"the chat template of {self._path} does not take prompt {number}: "
                f"{first_line(error)}",
                "Give the prompt as plain text, or another template beside the tokenizer.",
            ) from error
        return text

    def _images(self, prompt: Prompt, number: int) -> Encoded:
        images = [_image(Path(path), number) for path in prompt.images]
        text = self._templated(prompt, number)
        if self._processor is None:
            self._processor = _processor(self._path, self._config, self.tokenizer, self._loading)
        try:
            found = dict(self._processor(text=[text], images=images, return_tensors="pt"))
        except Exception as error:  # such as an image that is too long for its height
            if isinstance(error, CkptdiffError) or is_out_of_memory(error):
                raise
            raise UsageError(
                f"the processor of {self._path} does not take the images of prompt {number}: "
                f"{first_line(error)}",
                "Let the messages name each image once, and give images that the model can take.",
            ) from error
        found.pop("attention_mask", None)
        ids = found.pop("input_ids")[0]
        sequences = {"input_ids": ids}
        token = getattr(self._config, "image_token_id", None)
        if token is not None:
            # Without it Qwen2.5-VL runs, with the positions of plain text.
            sequences["mm_token_type_ids"] = (ids == token).int()
        found.pop("mm_token_type_ids", None)
        return Encoded(sequences, found)


class ImageRoute:
    """Qwen2-VL's processor without its video half: image processor, tokenizer, image tokens."""

    def __init__(self, path: Path, config: PretrainedConfig, tokenizer: Any) -> None:
        kind = getattr(transformers, "Qwen2VLImageProcessorPil", None)
        kind = kind or transformers.Qwen2VLImageProcessor
        self._images = kind.from_pretrained(path, local_files_only=True)
        self._tokenizer = tokenizer
        self._token = tokenizer.convert_ids_to_tokens(config.image_token_id)

    def __call__(
        self, text: list[str], images: list[Any], return_tensors: str
    ) -> dict[str, torch.Tensor]:
        """The same as the processor's, for one text."""
        found = self._images(images=images, return_tensors=return_tensors)
        merged = self._images.merge_size**2
        counts = [int(grid.prod()) // merged for grid in found["image_grid_thw"]]
        pieces = text[0].split(self._token)
        if len(pieces) != len(counts) + 1:
            raise ValueError(
                f"the chat template puts {len(pieces) - 1} images where {len(counts)} are given"
            )
        whole = pieces[0] + "".join(
            self._token * count + piece for count, piece in zip(counts, pieces[1:], strict=True)
        )
        ids = self._tokenizer([whole], return_tensors=return_tensors, add_special_tokens=False)
        return {"input_ids": ids["input_ids"], **found}


def _processor(
    path: Path, config: PretrainedConfig, tokenizer: Any, loading: Mapping[str, bool]
) -> Any:
    try:
        return AutoProcessor.from_pretrained(path, **loading)  # type: ignore[no-untyped-call]
    except Exception as error:  # among others ImportError, when torchvision is not there
        if refuses_own_code(error):
            raise own_code("processor", path) from error
        if config.model_type.startswith(("qwen2_vl", "qwen2_5_vl")):
            return ImageRoute(path, config, tokenizer)
        raise CapabilityError(
            f"the processor of {path} does not load: {first_line(error)}",
            "pip install torchvision, or give prompts without images.",
        ) from error


def _conversation(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt's messages, or one of its text with its images in front."""
    if prompt.messages:
        return [dict(message) for message in prompt.messages]
    content: list[dict[str, str]] = [{"type": "image"} for _ in prompt.images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt.text}]}]


def _image(path: Path, number: int) -> Any:
    from PIL import Image

    try:
        # Not by its path: what is no file, as a pipe, would be waited for.
        with (
            open_regular(path) as file,
            open(file.fd, "rb", closefd=False) as stream,
            Image.open(stream) as image,
        ):
            return image.convert("RGB")
    except Exception as error:  # an image can be broken in any way
        raise UsageError(
            f"the image {path} of prompt {number} cannot be read: {first_line(error)}",
            "Paths are relative to the file of prompts.",
        ) from error
