"""`mtq.auto_quantize`: how sensitive each layer is, and what that decides.

With a list of layers the search is made to follow it: all others are disabled, and the budget is
the least that these layers can be stored in. Without one it spends the bits that it is given.
The search pickles nothing.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import modelopt.torch.quantization as mtq  # type: ignore[import-untyped]
from modelopt.torch.quantization.algorithms import (  # type: ignore[import-untyped]
    QuantRecipe,
)
from transformers import PreTrainedModel

from ckptdiff.errors import CkptdiffError
from ckptdiff.records.export import ExportOrder
from ckptdiff.runtime.export.calibration import Inputs, Loader, forward, labelled
from ckptdiff.runtime.export.modules import Parts
from ckptdiff.runtime.export.presets import block_size, method, narrowed, preset, spared
from ckptdiff.runtime.export.progress import Progress
from ckptdiff.runtime.export.quantizing import calibration, without_cache

_LEAST = re.compile(r"minimum achievable effective bits is ([0-9.]+[0-9])")
# The message has four decimals: the true minimum may lie half of the last one above.
_ROUNDING = 5.1e-5


@dataclass(frozen=True, slots=True)
class Searched:
    """A model that a search has quantized, at `bits` effective bits."""

    model: PreTrainedModel
    state: Mapping[str, Any]
    bits: float
    notes: tuple[str, ...] = field(default_factory=tuple)


def search(
    load: Callable[[], PreTrainedModel],
    order: ExportOrder,
    batches: Sequence[Inputs],
    progress: Progress,
) -> Searched:
    """Search as `order` says. `load` gives a fresh model: one that a search refused cannot be
    used again. Raises `CkptdiffError` when layers that the order lists stay unquantized, and when
    a ranking is wanted and the rows tell no layer from another."""
    model = load()
    disabled, notes = _disabled(model, order)
    floor = min(_bits(each.name) for each in order.presets)
    # A search does not even begin below the whole bits of its smallest format.
    bits = floor if order.bits is None else max(order.bits, float(int(floor)))
    state = _run(model, order, batches, disabled, bits, progress)
    if isinstance(state, float):
        bits = state + _ROUNDING
        del model
        model = load()
        state = _run(model, order, batches, disabled, bits, progress)
    if isinstance(state, float):
        raise CkptdiffError(
            f"the search refuses {bits:.4f} effective bits, which it named as the least itself",
            "Use --engine modelopt, which needs no budget.",
        )
    if order.presets[0].modules is not None:
        _require_followed(state)
    else:
        _require_ranked(state)
    if order.kv_cache:
        _calibrate_cache(model, order, batches, progress)
    if order.bits is not None and bits > order.bits:
        notes.append(
            f"{order.bits:g} effective bits cannot be had: with the layers that may be quantized "
            f"{bits:.4f} is the least, which was used"
        )
    return Searched(model, state, bits, tuple(notes))


def _run(
    model: PreTrainedModel,
    order: ExportOrder,
    batches: Sequence[Inputs],
    disabled: Sequence[str],
    bits: float,
    progress: Progress,
) -> Mapping[str, Any] | float:
    """The state of the search; the least feasible bits when `bits` are too few."""
    passes = ["calibrate" for each in order.presets if method(preset(each.name))]
    try:
        with progress.during("search", None, "modules"):
            _, state = mtq.auto_quantize(
                model,
                constraints={"effective_bits": bits},
                quantization_formats=[each.name for each in order.presets],
                data_loader=Loader([labelled(b) for b in batches], [*passes, "score"], progress),
                disabled_layers=list(disabled) or None,
                num_calib_steps=len(batches),
                num_score_steps=len(batches),
                verbose=False,
                **_scoring(order.score),
            )
    except ValueError as error:
        # Nothing has been calibrated yet; but the model is of no use any more.
        if least := _LEAST.search(str(error)):
            return float(least[1])
        raise
    return state  # type: ignore[no-any-return]


def _scoring(score: str) -> dict[str, Any]:
    """How the search is told to look at a batch."""
    taken = inspect.signature(mtq.auto_quantize).parameters
    named = {"method": score} if "method" in taken else {}
    if score == "kl_div":
        return {"forward_step": lambda model, batch: forward(model, batch).logits, **named}
    return {"forward_step": forward, "loss_func": lambda output, _: output.loss, **named}


def _disabled(model: PreTrainedModel, order: ExportOrder) -> tuple[list[str], list[str]]:
    """Names of the modules that the search must not touch, and what is to be said of them."""
    parts = Parts(model)
    listed = [key for each in order.presets for key in each.modules or ()]
    if order.presets[0].modules is not None:
        return list(parts.others(parts.chosen(listed))), []
    names = list(parts.names.values())
    alone = {name for each in order.presets for name in spared(preset(each.name), names)}
    alone |= {name for key, name in parts.names.items() if key == "lm_head"}
    block = max(block_size(preset(each.name)) for each in order.presets)
    odd = [name for name in parts.undividable(block) if name not in alone]
    notes = []
    if odd:
        notes.append(
            f"{len(odd)} layers stay as they are, because blocks of {block} do not divide their "
            f"inputs: {', '.join(odd[:3])}{' …' if len(odd) > 3 else ''}"
        )
    return [*sorted(alone), *odd], notes


def _bits(name: str) -> float:
    """Effective bits of a preset's weights, as the search counts them."""
    return float(QuantRecipe(name).compression * 16)


def _require_followed(state: Mapping[str, Any]) -> None:
    left = [
        name
        for name, recipe in state["best"]["recipe"].items()
        if len(state["candidate_stats"][name]["formats"]) > 1 and str(recipe).startswith("NONE")
    ]
    if left:
        raise CkptdiffError(
            f"the search left {', '.join(left[:3])} unquantized, which the manifest selects",
            "Use --engine modelopt, which follows it in any case.",
        )


def _require_ranked(state: Mapping[str, Any]) -> None:
    """A row of one token has no loss, and a loss of NaN no gradient."""
    scores = [
        float(score)
        for stats in state["candidate_stats"].values()
        for recipe, score in zip(stats["formats"], stats["scores"], strict=True)
        if not str(recipe).startswith("NONE")
    ]
    broken = sum(not math.isfinite(score) for score in scores)
    if broken:
        what = f"{broken} of {len(scores)} scores are no numbers"
    elif scores and len(set(scores)) == 1 < len(scores):
        what = f"every layer has the score {scores[0]:g}"
    else:
        return
    raise CkptdiffError(
        f"the search ranked nothing: {what}",
        "Name rows by --calib that the model can read, of two tokens or more each.",
    )


def _calibrate_cache(
    model: PreTrainedModel, order: ExportOrder, batches: Sequence[Inputs], progress: Progress
) -> None:
    """The search knows no KV cache: its quantizers are set afterwards."""
    assert order.kv_cache is not None
    cache = preset(order.kv_cache)
    config = narrowed(cache, [], [], kv_cache=cache, no_cache=without_cache(model))
    mtq.set_quantizer_by_cfg(model, config["quant_cfg"])
    off = [{"quantizer_name": "*", "enable": False}] + config["quant_cfg"]
    with mtq.set_quantizer_by_cfg_context(model, off):
        mtq.calibrate(model, algorithm="max", forward_loop=calibration(batches, progress))
