"""Puts the values of a checkpoint into a model, strictly: nothing left over, nothing left out.

A filled model remembers which value lies where, so that taking on another checkpoint reads only
what differs. In place: nothing but a chunk is ever held beside the model.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from shlex import quote

import torch
from transformers import PreTrainedModel

from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.errors import UsageError
from ckptdiff.events import Advanced, CancelToken, Finished, Sink, Started
from ckptdiff.quant.arrays import CHUNK_ELEMENTS, MisfitError
from ckptdiff.runtime.places import Place, Places
from ckptdiff.runtime.values import Value
from ckptdiff.sources.local import Unreadable

Arrangement = Mapping[Place, Value]

# A copy to a GPU is worth its overhead from here on; a processor wants its cache instead.
_GPU_ELEMENTS = 1 << 22
_THREADS = 8
_NAMED = 3


def arrange(places: Places, values: Mapping[str, Value], path: str) -> Arrangement:
    """Which value goes where in the model.

    Raises `UsageError` for a value that finds no place or another shape there, and for a
    place that is left without a value; `path` is the checkpoint that the message names.
    """
    found: dict[Place, Value] = {}
    tied: dict[str, Value] = {}
    for name, value in values.items():
        place = places.find(name, value.shape)
        if place is None:
            if places.is_ignored(name):
                continue
            raise _misfit(path, f"the model has no parameter for {name}")
        if place.parameter in places.aliases:
            tied[places.aliases[place.parameter]] = value
            continue
        _require_shape(places, place, value, path)
        if place in found:
            raise _misfit(path, f"{name} and {found[place].tensor} are the same parameter")
        found[place] = value
    for parameter, value in tied.items():
        # Of two names of one parameter, loaders take the first; the other may be absent.
        if Place(parameter) not in found:
            _require_shape(places, Place(parameter), value, path)
            found[Place(parameter)] = value
    _require_whole(places, found, path)
    return found


class Filling:
    """The weights of one model, and what they hold at present."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.places = Places(model)
        self._held: dict[Place, Hashable | None] = {}

    def differing(self, arrangement: Arrangement) -> Arrangement:
        """The part of an arrangement that the model does not hold already."""
        return {
            place: value
            for place, value in arrangement.items()
            if value.key is None or self._held.get(place) != value.key
        }

    def holds(self, arrangement: Arrangement) -> None:
        """Note that the model holds this already: the same values, whose keys are known now."""
        self._held = {place: value.key for place, value in arrangement.items()}

    def take_on(self, arrangement: Arrangement, path: str, sink: Sink, cancel: CancelToken) -> int:
        """Make the model hold `arrangement`, and return how many tensors that changed.

        Raises `UsageError` when a value cannot be read, `Cancelled`. Then the model holds
        part of either; taking on another arrangement mends it.
        """
        todo = self.differing(arrangement)
        sink(Started("load", sum(v.shard.tensors[v.tensor].nbytes for v in todo.values()), "bytes"))
        try:
            with TensorReader() as reader, ThreadPoolExecutor(_threads()) as pool:
                for place, value in todo.items():
                    self._held[place] = None
                    reader.place(value.shard, value.tensor)  # opens the file, for all threads
                tasks = {pool.submit(self._write, p, v, reader): v for p, v in todo.items()}
                try:
                    for task, value in tasks.items():
                        cancel.raise_if_cancelled()
                        task.result()
                        nbytes = value.shard.tensors[value.tensor].nbytes
                        sink(Advanced("load", nbytes, value.tensor))
                finally:
                    for task in tasks:
                        task.cancel()
                reader.confirm(*{value.shard.path: value.shard for value in todo.values()}.values())
        except (Unreadable, MisfitError) as error:
            raise UsageError(
                f"{path} cannot be loaded: {error}", f"Try `ckptdiff check {quote(path)}`."
            ) from error
        self._held |= {place: value.key for place, value in todo.items()}
        sink(Finished("load"))
        return len(todo)

    @torch.no_grad()
    def _write(self, place: Place, value: Value, reader: TensorReader) -> None:
        whole = self.places.tensors[place.parameter]
        target = place.of(whole)
        elements = CHUNK_ELEMENTS if whole.device.type == "cpu" else _GPU_ELEMENTS
        for first, rows in value.chunks(reader, elements, whole.device):
            # On the device first: it is there that the dtype should change.
            rows = rows.to(whole.device)
            if target.ndim:
                target[first : first + len(rows)].copy_(rows)
            else:
                target.copy_(rows.reshape(()))


def _threads() -> int:
    return min(_THREADS, os.cpu_count() or 1)


def _require_shape(places: Places, place: Place, value: Value, path: str) -> None:
    wanted = tuple(place.of(places.tensors[place.parameter]).shape)
    if value.shape == wanted:
        return
    what = f"{value.tensor} holds {list(value.shape)}, and the model has {list(wanted)} there"
    table = "embed_tokens" in place.parameter or place.parameter.startswith("lm_head")
    if table and value.shape[:1] != wanted[:1]:
        what += ": the vocabularies differ"
    raise _misfit(path, what)


def _require_whole(places: Places, found: Iterable[Place], path: str) -> None:
    """Every element of every parameter belongs to exactly one place."""
    filled = dict.fromkeys(places.tensors, 0)
    for place in found:
        filled[place.parameter] += place.of(places.tensors[place.parameter]).numel()
    unset = [name for name, tensor in places.tensors.items() if filled[name] != tensor.numel()]
    if unset:
        named = ", ".join(unset[:_NAMED])
        more = f" and {len(unset) - _NAMED:,} more" if len(unset) > _NAMED else ""
        raise _misfit(path, f"it holds nothing, or only a part, for {named}{more}")


def _misfit(path: str, what: str) -> UsageError:
    return UsageError(
        f"{path} cannot be loaded: {what}", "Its tensors are not those of the model in config.json."
    )
