"""ModelOpt's presets narrowed to some of a model's modules. Nothing is run here.

Since 0.47 a preset's `quant_cfg` is a list of entries, before it was a dict by pattern; in both
the last that matches a quantizer wins.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import modelopt.torch.quantization as mtq  # type: ignore[import-untyped]

from ckptdiff.errors import UsageError

Config = dict[str, Any]
Entry = tuple[str, dict[str, Any]]

_VISION = ("vision", "visual", "multi_modal")
_LINEAR = ("weight_quantizer", "input_quantizer")


def preset(name: str) -> Config:
    """A copy of a preset. Raises `UsageError` for a name that this ModelOpt does not have."""
    found = getattr(mtq, name, None)
    if not isinstance(found, dict) or "quant_cfg" not in found:
        known = sorted(n for n in dir(mtq) if n.endswith("_CFG"))
        raise UsageError(f"ModelOpt has no preset {name}", f"It has {', '.join(known)}.")
    return copy.deepcopy(found)


def narrowed(
    first: Config,
    chosen: Sequence[str],
    others: Sequence[str],
    *,
    more: Mapping[str, Config] | None = None,
    kv_cache: Config | None = None,
    no_cache: Sequence[str] = (),
) -> Config:
    """`first` for the modules `chosen`, nothing for `others`; both are names in the model.

    What the preset leaves alone by name (vision towers, heads) is quantized where it is chosen.
    `more` are presets for single modules, by their names; `kv_cache` is one for the KV cache,
    of all attentions but those in `no_cache`. Raises `UsageError` when their algorithms differ.
    """
    more = more or {}
    for config in more.values():
        if config.get("algorithm") != first.get("algorithm"):
            raise UsageError(
                "presets of different calibration algorithms cannot be mixed",
                "Name presets of one algorithm.",
            )
    entries = [e for e in _entries(first["quant_cfg"]) if not _spares(e, chosen)]
    if kv_cache is not None:
        entries += _entries(kv_cache["quant_cfg"])
        entries += [(f"{name}.*_bmm_quantizer", {"enable": False}) for name in no_cache]
    for name, config in more.items():
        entries += _for_one(name, config)
    entries += [(f"{name}.*", {"enable": False}) for name in others]
    return {**first, "quant_cfg": _like(first["quant_cfg"], entries)}


def spared(config: Config, names: Sequence[str]) -> tuple[str, ...]:
    """The modules that a preset leaves alone by their names: heads and routers, but not vision
    towers, which are left alone only because little is known of them."""
    patterns = [
        (pattern, settings)
        for pattern, settings in _entries(config["quant_cfg"])
        if not any(word in pattern for word in _VISION)
    ]
    return tuple(name for name in names if any(_spares(entry, [name]) for entry in patterns))


def block_size(config: Config) -> int:
    """How many inputs a block of the weight must have in full; 1 when any number will do."""
    for pattern, entry in _entries(config["quant_cfg"]):
        if pattern.endswith("weight_quantizer"):
            settings = entry.get("cfg", entry)
            settings = settings[0] if isinstance(settings, list) else settings
            sizes = settings.get("block_sizes") or {}
            # Blocks of rows as well, FP8's, may be partial.
            sides = [size for side, size in sizes.items() if isinstance(side, int)]
            return int(sizes[-1]) if sides == [sizes.get(-1)] else 1
    return 1


def method(config: Config) -> str:
    """The calibration algorithm's name, "" for none."""
    algorithm = config.get("algorithm")
    return str(algorithm.get("method", "") if isinstance(algorithm, dict) else algorithm or "")


def sees_inputs(config: Config) -> bool:
    """Whether an export depends on what flows into a layer: by input scales or by a search."""
    if not method(config):
        return False
    if method(config) != "max":
        return True
    return any(
        pattern.endswith("input_quantizer") and settings.get("enable", True)
        for pattern, settings in _entries(config["quant_cfg"])
    )


def _entries(quant_cfg: Any) -> list[Entry]:
    """(pattern, the rest of the entry), in order."""
    if isinstance(quant_cfg, dict):
        return list(quant_cfg.items())
    return [
        (entry["quantizer_name"], {k: v for k, v in entry.items() if k != "quantizer_name"})
        for entry in quant_cfg
    ]


def _like(original: Any, entries: Sequence[Entry]) -> Any:
    if isinstance(original, dict):
        merged: dict[str, Any] = {}
        for pattern, entry in entries:
            merged.pop(pattern, None)  # the last one counts, where it stands
            merged[pattern] = entry
        return merged
    return [{"quantizer_name": pattern, **entry} for pattern, entry in entries]


def _spares(entry: Entry, chosen: Collection[str]) -> bool:
    """Whether an entry keeps a chosen module from being quantized, by its name."""
    pattern, settings = entry
    if settings.get("enable", True) or "parent_class" in settings or pattern in ("*", "default"):
        return False
    # "*output_quantizer" and the like are about a quantizer of every module.
    if pattern.startswith("*") and pattern.endswith("_quantizer"):
        return False
    return any(fnmatch.fnmatchcase(f"{name}.weight_quantizer", pattern) for name in chosen)


def _for_one(name: str, config: Config) -> Iterator[Entry]:
    for pattern, settings in _entries(config["quant_cfg"]):
        if pattern.removeprefix("*") in _LINEAR:
            yield f"{name}.*{pattern.removeprefix('*')}", copy.deepcopy(settings)
