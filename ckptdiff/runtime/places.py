"""Where each tensor of a checkpoint lies in a live model, however the two are spelled.

Checkpoints hold experts one by one, transformers 5 all of a layer in one parameter; prefixes
differ between disk and live models; tied weights have several names. What is read into a place
is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ckptdiff.formats.names import bare, keys_of

# gate and up may lie in one parameter, one after the other or row by row in turns.
_EXPERT = re.compile(
    r"^(?P<block>.*\bexperts)\.(?P<number>\d+)\.(?P<leaf>\w+)\.(?P<kind>weight|bias)$"
)
_HALVES = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}
_WHOLE = {"down_proj": "down_proj", "w2": "down_proj", "gate_up_proj": "gate_up_proj"}


@dataclass(frozen=True, slots=True)
class Place:
    """A parameter or buffer, or the part of it that one expert's linear takes.

    `half` is which half of the outputs (0 gate, 1 up), `interleaved` says that the two take
    turns, `transposed` that the parameter holds [I, O].
    """

    parameter: str
    expert: int | None = None
    half: int | None = None
    interleaved: bool = False
    transposed: bool = False

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """The view of `whole`, the parameter, that the checkpoint's tensor goes into."""
        part = whole if self.expert is None else whole[self.expert]
        part = part.mT if self.transposed else part
        if self.half is None:
            return part
        if self.interleaved:
            return part[self.half :: 2]
        middle = part.shape[0] // 2
        return part[self.half * middle : (self.half + 1) * middle]


class Places:
    """The places of one model. `tensors` are its parameters and persistent buffers by the
    first of their names; `aliases` maps each further name of a tied one to that."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.tensors: dict[str, torch.Tensor] = {}
        self.aliases: dict[str, str] = {}
        persistent = set(model.state_dict(keep_vars=True))
        first: dict[int, str] = {}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        for name, tensor in named:
            if name not in persistent:
                continue
            if id(tensor) in first:
                self.aliases[name] = first[id(tensor)]
            else:
                first[id(tensor)] = name
                self.tensors[name] = tensor
        self._by_key = {key: name for name, key in keys_of([*self.tensors, *self.aliases]).items()}
        self._renamed = _renaming(model)

    def find(self, name: str, shape: tuple[int, ...]) -> Place | None:
        """The place of a tensor that a checkpoint calls `name`; None when there is none."""
        for spelled in dict.fromkeys((name, self._renamed(name))):
            if found := self._live(spelled):
                return Place(found)
            if (match := _EXPERT.match(spelled)) and (place := self._expert(match, shape)):
                return place
        return None

    def is_ignored(self, name: str) -> bool:
        """Whether the model's class says that checkpoints may hold this and it has no use."""
        patterns = getattr(self._model, "_keys_to_ignore_on_load_unexpected", None) or ()
        # Rotary frequencies follow from the config; old checkpoints store them.
        return name.endswith("rotary_emb.inv_freq") or any(re.search(p, name) for p in patterns)

    def _live(self, name: str) -> str | None:
        if name in self.tensors or name in self.aliases:
            return name
        return self._by_key.get(bare(name))

    def _expert(self, match: re.Match[str], shape: tuple[int, ...]) -> Place | None:
        leaf, suffix = match["leaf"], "" if match["kind"] == "weight" else "_bias"
        half = _HALVES.get(leaf)
        fused = "gate_up_proj" if half is not None else _WHOLE.get(leaf)
        if fused is None:
            return None
        parameter = self._live(f"{match['block']}.{fused}{suffix}")
        if parameter is None:
            return None
        module = self._model.get_submodule(parameter.rpartition(".")[0])
        whole, number = self.tensors[parameter].shape[1:], int(match["number"])
        if number >= len(self.tensors[parameter]):
            return None
        wanted = (shape[0] * (1 if half is None else 2), *shape[1:])
        transposed = len(whole) == 2 and (
            tuple(whole) != wanted or getattr(module, "is_transposed", False)
        )
        interleaved = half is not None and not getattr(module, "is_concatenated", True)
        return Place(parameter, number, half, interleaved, transposed)


def _renaming(model: PreTrainedModel) -> Callable[[str], str]:
    """The renaming that this version of transformers applies to this model's checkpoints."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming
    except ImportError:  # transformers 4
        patterns: Mapping[str, str] = getattr(model, "_checkpoint_conversion_mapping", {})

        def rename(name: str) -> str:
            for pattern, replacement in patterns.items():
                name = re.sub(pattern, replacement, name)
            return name

        return rename
    steps = [
        step
        for step in get_model_conversion_mapping(model, add_legacy=False)
        if isinstance(step, WeightRenaming) and not isinstance(step, WeightConverter)
    ]

    def renamed(name: str) -> str:
        for step in steps:
            name = step.rename_source_key(name)[0]
        return name

    return renamed
