"""One model on one device that takes on scheme after scheme, and is compared with what it was.

The reference's logits are computed once and kept. Between schemes only the tensors that differ
are written, in place, so a scheme costs one pass over the prompts and little more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TypeVar

import torch

from ckptdiff.errors import CapabilityError, UsageError
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.probe import Scores
from ckptdiff.runtime.activations import Simulation, simulate, use_plain_experts
from ckptdiff.runtime.child import during
from ckptdiff.runtime.failures import is_out_of_memory
from ckptdiff.runtime.filling import Arrangement, Filling
from ckptdiff.runtime.memory import fitting_dtype
from ckptdiff.runtime.metrics import compare
from ckptdiff.runtime.precision import WIDER, computed_in
from ckptdiff.runtime.prompts import Encoded
from ckptdiff.runtime.scoring import (
    Batch,
    Scorer,
    batch_of,
    batches,
    first_nonfinite,
)
from ckptdiff.runtime.skeleton import allocate, skeleton

_ROWS = 64
_TOKENS = {"cpu": 1024, "cuda": 8192}
_BATCHING_PROMPTS = 4
_PRECISION_PROMPTS = 16
_COMPARED_ROWS = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loadable:
    """A checkpoint and where its values go."""

    id: str
    scheme: SchemeEvidence
    arrangement: Arrangement


@dataclass(frozen=True, slots=True)
class Noise:
    """KL of the reference against itself, prompt by prompt: computed in other batches, and in a
    wider dtype (None where that could not be done)."""

    batching: tuple[float, ...]
    precision: tuple[float, ...] | None


class Bench:
    """A model without weights on `device`, in the dtype that fits there.

    `rows` is how many prompts make a batch. None: as many as suit the device, which counts
    their tokens.

    Raises `UsageError` when the model cannot be built, `CapabilityError` when it does not fit.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        *,
        dtype: torch.dtype | None,
        static: bool,
        losses: bool,
        rows: int | None,
        trust_remote_code: bool = False,
        sink: Sink,
    ) -> None:
        self.device = device
        with during(sink, "build", None, "modules"):
            model = skeleton(path, dtype or torch.float32, trust_remote_code)
            self.dtype = fitting_dtype(model, device, dtype)
            # Building it takes as long as filling it: not twice unless it must be smaller.
            if model.dtype != self.dtype:
                model = skeleton(path, self.dtype, trust_remote_code)
            self._model = model
        try:
            allocate(self._model, device)
        except Exception as error:  # the estimate was too low, or others took what was free
            if not is_out_of_memory(error):
                raise
            raise CapabilityError(
                f"there is too little memory on {device} for the model in "
                f"{str(self.dtype).removeprefix('torch.')}",
                "Free some memory, or name another --device or a smaller --dtype.",
            ) from error
        if static:
            use_plain_experts(self._model)
        self.filling = Filling(self._model)
        self._static = static
        self._simulation: Simulation | None = None
        self._scorer = Scorer(self._model, losses)
        self._rows = rows or _ROWS
        self._tokens = _TOKENS.get(device.type, _TOKENS["cpu"]) if rows is None else None
        self._sink = sink
        self._prompts: Sequence[Encoded] = ()
        self._pad = 0
        self._logits = torch.empty(0)
        self._reference: Loadable | None = None
        self.batches: tuple[Batch, ...] = ()
        self.perplexity: float | None = None

    def refer_to(self, reference: Loadable, prompts: Sequence[Encoded], pad: int) -> None:
        """Compute and keep the reference's logits. Raises `UsageError` when they are NaN."""
        self._reference, self._prompts, self._pad = reference, prompts, pad
        self._retrying(self._compute_reference)

    def score(self, other: Loadable) -> tuple[Scores, float | None]:
        """The scheme's numbers for every prompt, and its perplexity when it was asked for."""
        return self._retrying(lambda: self._compute(other))

    def noise(self) -> Noise:
        """What rounding alone does: the reference against itself on a few prompts."""
        with during(self._sink, "noise", None, "prompts"):
            return self._noise()

    def _noise(self) -> Noise:
        some = self._spread(_PRECISION_PROMPTS)
        wide = None
        if self.dtype in WIDER:
            groups = batches([self._prompts[n] for n in some], self._rows, self._tokens, self._pad)
            with computed_in(self._model, WIDER[self.dtype]):
                wide = self._where_it_can(groups, some)
        few = self._spread(_BATCHING_PROMPTS)
        rows = {number: len(batch.numbers) for batch in self.batches for number in batch.numbers}
        # Alone, or, where a prompt is alone already, beside itself.
        other = [batch_of(self._prompts, [n] * (1 + (rows[n] == 1)), self._pad) for n in few]
        return Noise(self._where_it_can(other) or (), wide)

    def _spread(self, count: int) -> list[int]:
        """At most `count` prompts, spread evenly over all."""
        return sorted({n * len(self._prompts) // count for n in range(count)})

    def _where_it_can(
        self, again: Sequence[Batch], numbers: Sequence[int] | None = None
    ) -> tuple[float, ...] | None:
        """As `_against_itself`; None for a model that insists on a dtype somewhere, and where
        there is no room."""
        try:
            return self._against_itself(again, numbers)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error) and self.device.type == "cuda":
                torch.cuda.empty_cache()
            return None

    def _against_itself(
        self, again: Sequence[Batch], numbers: Sequence[int] | None = None
    ) -> tuple[float, ...]:
        """The KL of each prompt between its logits now and the kept ones. `numbers` says which
        prompts the batches' own numbers stand for."""
        found: dict[int, float] = {}
        for batch in again:
            logits = self._scorer.run(batch).logits.cpu()
            for number, row in zip(batch.numbers, logits, strict=True):
                prompt = numbers[number] if numbers else number
                found[prompt] = compare(row[None], self._logits[prompt][None]).kl[0]
        return tuple(found[number] for number in sorted(found))

    def _compute_reference(self) -> None:
        assert self._reference is not None
        self.batches = batches(self._prompts, self._rows, self._tokens, self._pad)
        self._take_on(self._reference)
        kept: list[torch.Tensor] = [torch.empty(0)] * len(self._prompts)

        def keep(batch: Batch, logits: torch.Tensor) -> None:
            for number, row in zip(batch.numbers, logits.cpu(), strict=True):
                kept[number] = row

        self.perplexity = self._run(self._reference, keep)
        self._logits = torch.stack(kept)

    def _compute(self, other: Loadable) -> tuple[Scores, float | None]:
        self._take_on(other)
        found: dict[int, tuple[float, ...]] = {}

        def hold_against(batch: Batch, logits: torch.Tensor) -> None:
            wanted = self._logits[list(batch.numbers)].to(logits.device)
            if wanted.shape != logits.shape:
                raise UsageError(
                    f"{other.id} gives {logits.shape[-1]:,} logits, the reference "
                    f"{wanted.shape[-1]:,}: their vocabularies differ",
                    "Compare schemes of one model.",
                )
            # A few rows at a time: float64 of a whole batch would be large beside a small model.
            for first in range(0, len(wanted), _COMPARED_ROWS):
                stop = first + _COMPARED_ROWS
                a = compare(wanted[first:stop], logits[first:stop])
                columns = (a.mse, a.kl, a.reverse_kl, a.js, a.top1, a.top5)
                rows = zip(*columns, strict=True)
                found.update(zip(batch.numbers[first:stop], rows, strict=True))

        perplexity = self._run(other, hold_against)
        ordered = [found[number] for number in range(len(self._prompts))]
        return Scores(*map(tuple, zip(*ordered, strict=True))), perplexity

    def _take_on(self, loadable: Loadable) -> None:
        if self._simulation is not None:
            self._simulation.remove()
        self.filling.take_on(
            loadable.arrangement, loadable.scheme.checkpoint.path, self._sink, CancelToken()
        )
        if self._static:
            self._simulation = simulate(
                self._model, self.filling.places, loadable.scheme, loadable.arrangement
            )

    def _run(self, loadable: Loadable, use: Callable[[Batch, torch.Tensor], None]) -> float | None:
        """One pass over the prompts. Returns the perplexity when losses are computed."""
        stage = f"probe {loadable.id}"
        self._sink(Started(stage, len(self._prompts), "prompts"))
        losses: list[tuple[float, int]] = []
        for batch in self.batches:
            outcome = self._scorer.run(batch)
            if not outcome.logits.isfinite().all():
                self._raise_nonfinite(loadable, batch, outcome.logits)
            use(batch, outcome.logits)
            losses += outcome.losses
            self._sink(Advanced(stage, len(batch.numbers)))
        self._sink(Finished(stage))
        total = sum(count for _, count in losses)
        if not total:
            return None
        return float(
            torch.tensor(sum(loss for loss, _ in losses) / total, dtype=torch.float64).exp()
        )

    def _raise_nonfinite(self, loadable: Loadable, batch: Batch, logits: torch.Tensor) -> None:
        bad = (~logits.isfinite()).any(-1).nonzero()[0].item()
        where = first_nonfinite(self._model, self._scorer, batch) or "the logits themselves"
        path = loadable.scheme.checkpoint.path
        raise UsageError(
            f"{loadable.id} gives NaN or infinities for prompt {batch.numbers[int(bad)] + 1}; "
            f"the first module that makes them is {where}",
            f"`ckptdiff check {quote(str(path))}` looks for weights that are not finite.",
        )

    def _retrying(self, work: Callable[[], T]) -> T:
        """`work`, again with half the batch when memory runs out: then the reference, too, is
        computed anew, because it must have been computed in the same batches."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self._rows == 1:
                    raise CapabilityError(
                        f"there is too little memory on {self.device} for one prompt at a time",
                        "Try a smaller --max-length, a smaller --dtype or another --device.",
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            longest = max((len(batch.numbers) for batch in self.batches), default=self._rows)
            self._rows = max(1, longest // 2)
            if self._tokens is not None:
                self._tokens = max(1, self._tokens // 2)
            if work != self._compute_reference:
                self._retrying(self._compute_reference)
