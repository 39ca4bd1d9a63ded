"""The parts of a live model that can be quantized, and which of them an order is about.

Orders name modules by keys, as they are on disk; a model may hold the experts of a layer in one
module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch

from ckptdiff.errors import UsageError
from ckptdiff.formats.names import RECIPE_SUFFIX, keys_of

_NAMED = 3


class Parts:
    """`names` maps the key of each module that owns a matrix to its name in the model."""

    def __init__(self, model: torch.nn.Module) -> None:
        owners = {
            name: module
            for name, module in model.named_modules()
            if name and any(p.ndim > 1 for p in module.parameters(recurse=False))
        }
        self.names: Mapping[str, str] = {key: name for name, key in keys_of(owners).items()}
        self._modules = owners

    def chosen(self, keys: Collection[str]) -> tuple[str, ...]:
        """Names of the modules that `keys` are about, in the order of the model.

        Raises `UsageError` for a key that the model has nothing for.
        """
        found = [name for key, name in self.names.items() if key in keys]
        left = set(keys) - self.names.keys()
        for key, name in self.names.items():
            inside = {each for each in left if each.startswith(f"{key}.")}
            if inside:
                found.append(name)
                left -= inside
        if left:
            listed = ", ".join(sorted(left)[:_NAMED])
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            raise UsageError(
                f"the model has no module for {listed}{more}, which should be quantized",
                "Its base is another model, or this transformers builds it differently.",
            )
        wanted = set(found)
        return tuple(name for name in self.names.values() if name in wanted)

    def others(self, chosen: Collection[str]) -> tuple[str, ...]:
        """All the modules but these."""
        kept = set(chosen)
        return tuple(name for name in self.names.values() if name not in kept)

    def undividable(self, block: int) -> Iterator[str]:
        """Linears whose inputs are no whole number of blocks."""
        for name, module in self._modules.items():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.shape[1] % block:
                yield name


def manifest_name(live: str) -> str:
    """A live module's or recipe's name as manifests write it.

    >>> manifest_name("model.language_model.layers.0.mlp.gate_proj.quant_recipe")
    'language_model.layers.0.mlp.gate_proj.quant_recipe'
    """
    return live.removeprefix("model.")


def recipe_module(recipe: str) -> str:
    """The name of a recipe without its suffix."""
    return recipe.removesuffix(RECIPE_SUFFIX)
