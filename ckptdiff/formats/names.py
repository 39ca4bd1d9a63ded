"""One name for one module, however disk, live model and manifests spell it.

Hub checkpoints and ModelOpt exports write `model.layers.0…` and `visual…`, live models
`model.language_model.layers.0…` and `model.visual…`, baseline manifests
`language_model.layers.0…`. The *key* is what is left once those prefixes are gone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

RECIPE_SUFFIX = ".quant_recipe"
WEIGHT_SUFFIXES = (".weight", ".weight_packed", ".qweight")

_EXPERT = re.compile(r"^(.*\bexperts)\.\d+\.")
_EXPERTS = re.compile(r"^(.*\bexperts)\.")
# As ModelOpt groups them; the last two are the linear attention of Qwen3-Next.
FUSED = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_b", "in_proj_a"),
)
# The norm in front of a linear, which AWQ folds the scales of its inputs into: where a layer has
# several of these, the first; with one alone, attention and MLP lie side by side behind it. What
# follows no norm has none.
_MLP_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm", "input_layernorm")
_NORMS_BEFORE: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("input_layernorm",),
    "k_proj": ("input_layernorm",),
    "v_proj": ("input_layernorm",),
    "gate_proj": _MLP_NORMS,
    "up_proj": _MLP_NORMS,
    "fc1": _MLP_NORMS,
    "c_fc": _MLP_NORMS,
    "o_proj": (),
    "down_proj": (),
}
# Classes of transformers 5.24 whose norms multiply by one more than their weight.
_ONE_MORE = re.compile(
    r"(Recurrent|Vault|T5|Pali)?Gemma[23]?(?![a-z\d])|Nemotron(?!H)|Qwen3Next|Qwen3_5|MiniMaxM3|Step3p7"
)
# What names a format in the name of a scheme: fp8, int4, nvfp4, mxfp8, w4a16, awq, mixed.
_FORMAT = re.compile(
    r"(?<![a-z0-9])(?:(?:nv|mx)?(?:fp|int)\d+|w\d+a\d+|awq|mixed)(?![a-z0-9])", re.IGNORECASE
)
_SHARE = re.compile(r"(?:^|[^a-z0-9])top(\d{1,3})(?![0-9a-z])", re.IGNORECASE)
_FRACTION = re.compile(r"^\.\d+")


def module_key(name: str) -> str:
    """The spelling-independent key of a module or recipe name.

    >>> module_key("model.language_model.layers.0.mlp.up_proj.quant_recipe")
    'layers.0.mlp.up_proj'
    """
    return bare(name.removesuffix(RECIPE_SUFFIX))


def bare(name: str) -> str:
    """A name without the prefixes in which disk, live models and manifests differ."""
    return name.removeprefix("model.").removeprefix("language_model.").removeprefix("model.")


def expert_layer(key: str) -> str | None:
    """What holds all experts of a layer, for the key of one expert's module; else None.

    >>> expert_layer("layers.0.mlp.experts.3.down_proj")
    'layers.0.mlp.experts'
    """
    match = _EXPERT.match(key)
    return match[1] if match else None


def experts_of(key: str) -> str | None:
    """What holds all experts of a layer, for the key of anything in it; else None.

    >>> experts_of("layers.0.mlp.experts.gate_up_proj")
    'layers.0.mlp.experts'
    """
    match = _EXPERTS.match(key)
    return match[1] if match else None


def norms_before(key: str) -> tuple[str, ...] | None:
    """Keys of the norms that may stand in front of a linear, of those that are there the first:
    AWQ folds the scales of the linear's inputs into it. () when none does, None: not known.

    >>> norms_before("layers.0.self_attn.q_proj")
    ('layers.0.input_layernorm',)
    """
    parent, _, leaf = key.rpartition(".")
    norms = _NORMS_BEFORE.get(leaf)
    layer = parent.rpartition(".")[0]
    return None if norms is None else tuple(f"{layer}.{norm}" for norm in norms)


def norms_add_one(architectures: Iterable[str]) -> bool:
    """Whether the norms of a model multiply by one more than their weight.

    >>> norms_add_one(["Gemma3ForCausalLM"]), norms_add_one(["Gemma3nForCausalLM"])
    (True, False)
    """
    return any(_ONE_MORE.match(name) for name in architectures)


def keys_of(names: Iterable[str]) -> dict[str, str]:
    """name of a tensor or module on disk -> key; the full names when two would share a key."""
    keys = {name: bare(name) for name in names}
    if len(set(keys.values())) < len(keys):
        return {name: name for name in keys}
    return keys


def weight_module(tensor_name: str) -> str | None:
    """The module whose weight this tensor is, or None for every other tensor."""
    for suffix in WEIGHT_SUFFIXES:
        if tensor_name.endswith(suffix):
            return tensor_name[: -len(suffix)]
    return None


def declared_share(name: str) -> int | None:
    """The percentage that a `topNN` token of a scheme's name declares, 1-100.

    >>> declared_share("fp8_autoquant_all_layers_top10_coco2017")
    10
    """
    found = _SHARE.findall(name)
    share = int(found[-1]) if found else 0
    return share if 1 <= share <= 100 else None


def scheme_name(baseline: str, percent: str) -> str:
    """The name of a scheme of `baseline`: `topNN` in the place of its own `topNN` or else of
    its last format token, at the end where it has neither.

    >>> scheme_name("fp8_autoquant_all_layers_fp8_coco2017", "10")
    'fp8_autoquant_all_layers_top10_coco2017'
    """
    shares = [match.span(1) for match in _SHARE.finditer(baseline)]
    formats = [match.span() for match in _FORMAT.finditer(baseline)]
    if shares:
        start, end = shares[-1]
        return baseline[:start] + percent + _FRACTION.sub("", baseline[end:], count=1)
    if formats:
        start, end = formats[-1]
        return f"{baseline[:start]}top{percent}{baseline[end:]}"
    return f"{baseline}_top{percent}"


def format_token(name: str) -> str | None:
    """The last word of a name that names a format, None where none does.

    >>> format_token("fp8_per_channel_per_token")
    'fp8'
    """
    found = _FORMAT.findall(name)
    return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class RecipeGroups:
    """Expands a recipe, named after the first member of its group, to module keys.

    ModelOpt searches groups: q/k/v together, gate/up together, all experts of a layer
    together; everything else alone. A module that is ranked under its own name is not
    part of another recipe's group, and a group belongs to the first of its members that
    is ranked.
    """

    modules: Collection[str]
    experts: Mapping[str, tuple[str, ...]]
    leaders: Mapping[str, str]
    ranked: frozenset[str]

    @classmethod
    def of(cls, modules: Collection[str], ranked: Iterable[str]) -> RecipeGroups:
        """`modules` are the keys that exist; `ranked` the keys of all known recipes."""
        experts: dict[str, list[str]] = defaultdict(list)
        leaders: dict[str, str] = {}
        known = frozenset(ranked)
        for module in modules:
            if match := _EXPERT.match(module):
                experts[match[1]].append(module)
                if module in known:
                    leaders.setdefault(match[1], module)
        return cls(
            modules=modules,
            experts={name: tuple(members) for name, members in experts.items()},
            leaders=leaders,
            ranked=known,
        )

    def expand(self, recipe: str) -> tuple[str, ...]:
        """The keys of the existing modules that recipe key `recipe` stands for."""
        if self._leader(recipe) != recipe and recipe in self.ranked and recipe in self.modules:
            return (recipe,)
        members = self._candidates(recipe)
        return tuple(
            member
            for member in members
            if member in self.modules and (member == recipe or member not in self.ranked)
        )

    def _leader(self, recipe: str) -> str | None:
        """The first ranked member of the recipe's group."""
        if match := _EXPERT.match(recipe):
            return self.leaders.get(match[1])
        return next((m for m in self._candidates(recipe) if m in self.ranked), None)

    def _candidates(self, recipe: str) -> tuple[str, ...]:
        if recipe in self.experts:
            return self.experts[recipe]
        if match := _EXPERT.match(recipe):
            return self.experts.get(match[1], ())
        parent, dot, leaf = recipe.rpartition(".")
        for group in FUSED:
            if leaf in group:
                return tuple(f"{parent}{dot}{member}" for member in group)
        return (recipe,)
