"""Rows of calibration data as batches of one model, and the loops that run a model on them.

Rows of one length make a batch, so that no padding ever enters the statistics. Order, and with
it every sum, follows from the rows alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ckptdiff.records.export import Calibration
from ckptdiff.runtime.export.progress import Progress
from ckptdiff.runtime.prompts import Encoded, Encoder
from ckptdiff.runtime.scoring import batch_of

Inputs = dict[str, torch.Tensor]

_ROWS = 8
_TOKENS = 8192


def batches_of(
    calibration: Calibration, base: Path, model: PreTrainedModel, trust_remote_code: bool = False
) -> list[Inputs]:
    """The model's keyword arguments, a batch each, on the CPU.

    Raises `UsageError` naming a row that the tokenizer or the processor does not take.
    """
    encoder = Encoder(base, model.config, calibration.length, trust_remote_code)
    encoded = encoder.encode(calibration.rows, calibration.numbers)
    taken = inspect.signature(model.forward).parameters
    found = []
    for group in _groups(encoded):
        inputs = batch_of(encoded, group, encoder.pad).inputs
        if "kwargs" not in taken:
            inputs = {name: tensor for name, tensor in inputs.items() if name in taken}
        found.append(inputs)
    return found


def _groups(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Numbers of rows that are as long as each other and stack, shortest first."""
    group: list[int] = []
    for number in sorted(range(len(encoded)), key=lambda n: (encoded[n].length, n)):
        row = encoded[number]
        first = encoded[group[0]] if group else row
        full = len(group) == _ROWS or row.length * (len(group) + 1) > _TOKENS
        if group and (full or row.length != first.length or not row.stacks_with(first)):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def forward(model: PreTrainedModel, inputs: Inputs) -> Any:
    """The model's output for one batch, wherever its parts lie."""
    device = model.device
    dtype = model.dtype
    moved = {
        name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        for name, tensor in inputs.items()
    }
    return model(**moved, use_cache=False)


def labelled(inputs: Inputs) -> Inputs:
    """A batch with what the model should have foretold: its own tokens, images left out."""
    labels = inputs["input_ids"].clone()
    kinds = inputs.get("mm_token_type_ids")
    if kinds is not None:
        labels[kinds != 0] = -100
    return {**inputs, "labels": labels}


class Loader:
    """Batches that say when they are taken: every pass over them is a stage.

    `stages` names the passes in the order in which they will come; further ones are called
    like the last. `taken` batches are all that a pass takes.
    """

    def __init__(
        self, batches: Sequence[Inputs], stages: Sequence[str], progress: Progress
    ) -> None:
        self._batches = batches
        self._stages = stages
        self._progress = progress
        self._pass = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Inputs]:
        stage = self._stages[min(self._pass, len(self._stages) - 1)]
        self._pass += 1
        # Whoever iterates may stop after the last batch without asking for another one: then
        # the stage ends when the iterator is dropped.
        with self._progress.during(stage, len(self._batches), "batches"):
            for batch in self._batches:
                try:
                    yield batch
                finally:
                    self._progress.advance()
