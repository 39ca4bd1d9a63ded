"""Forwards: prompts in batches by length, and of each prompt the logits behind its last token.

Sequences are padded on the right: in a causal model nothing behind a token changes what it sees,
and positions count from the start as the model was trained. The same prompts always make the same
batches, so that two models differ by their weights alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ckptdiff.errors import UsageError
from ckptdiff.runtime.metrics import token_losses
from ckptdiff.runtime.prompts import Encoded


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts that are computed together. `numbers` are their places in the list of prompts."""

    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    inputs: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one batch: the last logits, float32 [B, V] on the model's device, and for each prompt
    (sum of token losses, number of tokens) when they were asked for."""

    logits: torch.Tensor
    losses: tuple[tuple[float, int], ...] = ()


def batches(
    prompts: Sequence[Encoded], rows: int, tokens: int | None, pad: int
) -> tuple[Batch, ...]:
    """Prompts in batches of at most `rows` rows and, beyond one row, `tokens` padded tokens; None:
    however many."""
    order = sorted(range(len(prompts)), key=lambda n: (prompts[n].length, n))
    groups: list[list[int]] = []
    for number in order:
        group = groups[-1] if groups else []
        padded = prompts[number].length * (len(group) + 1)
        together = group and len(group) < rows and (tokens is None or padded <= tokens)
        if together and prompts[number].stacks_with(prompts[group[0]]):
            group.append(number)
        else:
            groups.append([number])
    return tuple(batch_of(prompts, group, pad) for group in groups)


def batch_of(prompts: Sequence[Encoded], numbers: Sequence[int], pad: int) -> Batch:
    """One batch of these prompts, padded on the right."""
    chosen = [prompts[number] for number in numbers]
    longest = max(prompt.length for prompt in chosen)
    inputs = {
        name: torch.stack(
            [_padded(p.sequences[name], longest, pad if name == "input_ids" else 0) for p in chosen]
        )
        for name in chosen[0].sequences
    }
    inputs["attention_mask"] = torch.stack(
        [_padded(torch.ones(p.length, dtype=torch.long), longest, 0) for p in chosen]
    )
    for name in chosen[0].media:
        inputs[name] = torch.cat([prompt.media[name] for prompt in chosen])
    return Batch(tuple(numbers), tuple(prompt.length for prompt in chosen), inputs)


def _padded(values: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)), value=value)


class Scorer:
    """Computes batches on one model."""

    def __init__(self, model: PreTrainedModel, losses: bool) -> None:
        self._model = model
        self._losses = losses
        taken = inspect.signature(model.forward).parameters
        # A model that takes any keyword hands them on to one that takes this.
        self._keeps = "logits_to_keep" in taken
        self._taken = None if "kwargs" in taken else set(taken)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Outcome:
        """The logits behind the last token of each prompt of the batch.

        Raises `UsageError` for a model that foretells no tokens.
        """
        device = self._model.device
        inputs = {
            name: tensor.to(device)
            for name, tensor in batch.inputs.items()
            if self._taken is None or name in self._taken
        }
        last = torch.tensor(batch.lengths, device=device) - 1
        kept = torch.unique(last)  # sorted
        if self._keeps and not self._losses:
            found = self._logits(inputs, logits_to_keep=kept)
            last = torch.searchsorted(kept, last)
        else:
            found = self._logits(inputs)
        rows = torch.arange(len(batch.lengths), device=device)
        logits = found[rows, last].to(torch.float32)
        if not self._losses:
            return Outcome(logits)
        return Outcome(logits, tuple(self._loss(batch, n, row) for n, row in enumerate(found)))

    def _logits(self, inputs: dict[str, torch.Tensor], **keywords: torch.Tensor) -> torch.Tensor:
        output = self._model(**inputs, **keywords, use_cache=False)
        logits: torch.Tensor | None = getattr(output, "logits", None)
        if logits is None or logits.ndim != 3:  # a classifier has one row a prompt
            raise UsageError(
                f"a {type(self._model).__name__} gives no logits of next tokens",
                "Probe a model that writes text; config.json says which class it is.",
            )
        return logits

    @staticmethod
    def _loss(batch: Batch, number: int, logits: torch.Tensor) -> tuple[float, int]:
        length = batch.lengths[number]
        ids = batch.inputs["input_ids"][number, :length].to(logits.device)
        losses = token_losses(logits[:length], ids)
        kinds = batch.inputs.get("mm_token_type_ids")
        if kinds is not None:  # pixels are not foretold
            losses = losses[kinds[number, 1:length].to(losses.device) == 0]
        return float(losses.sum()), len(losses)


def first_nonfinite(model: PreTrainedModel, run: Scorer, batch: Batch) -> str:
    """The first module whose output holds NaN or infinities, by its name; "" when none does."""
    found: list[str] = []

    def look(name: str) -> torch.utils.hooks.RemovableHandle:
        def after(_: torch.nn.Module, __: object, output: object) -> None:
            if not found and any(not tensor.isfinite().all() for tensor in _tensors(output)):
                found.append(name)

        return model.get_submodule(name).register_forward_hook(after)

    handles = [look(name) for name, _ in model.named_modules() if name]
    try:
        run.run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _tensors(output: object) -> Iterator[torch.Tensor]:
    if torch.is_tensor(output):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list):
        for each in output:
            yield from _tensors(each)
