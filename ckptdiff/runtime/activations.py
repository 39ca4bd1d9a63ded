"""Inputs of quantized linears rounded by their input scales, as serving engines do it.

The scales are ModelOpt's calibrated ones, so this is *static* quantization: FP8 rounds to E4M3
with one scale, INT8 to integers, NVFP4 to blocks of 16 E2M1 codes below one scale. Formats that
scale inputs as they come, or leave them alone, have no input scale and nothing is rounded.
A layer's pre_quant_scale goes on the input here, as it does in the engine. KV caches are not
simulated. Models remember nothing of it: `Simulation.remove` ends it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from ckptdiff.analysis.quantization import known_algorithm, module_algorithm
from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.errors import UsageError
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName
from ckptdiff.runtime.places import Place, Places
from ckptdiff.runtime.values import Value, odd

E4M3_MAX = 448.0
INT8_MAX = 127.0
E2M1_MAX = 6.0
FP4_BLOCK = 16
# What is calibrated to less counts as zero, as in ModelOpt.
_SMALLEST_AMAX = 2.0**-24
_E2M1_BORDERS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
_E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

Round = Callable[[torch.Tensor, float], torch.Tensor]


def round_fp8(values: torch.Tensor, scale: float) -> torch.Tensor:
    """Float32 values -> the nearest multiple of an E4M3 code and `scale`, saturating."""
    amax = np.float32(E4M3_MAX) * np.float32(scale)
    factor = np.float32(E4M3_MAX) / (amax if amax > _SMALLEST_AMAX else np.float32(1))
    scaled = (values * float(factor)).clamp(-E4M3_MAX, E4M3_MAX)
    return scaled.to(torch.float8_e4m3fn).to(torch.float32) * float(np.float32(1) / factor)


def round_int8(values: torch.Tensor, scale: float) -> torch.Tensor:
    """Float32 values -> the nearest multiple of `scale` that an INT8 holds, ties to even."""
    amax = np.float32(INT8_MAX) * np.float32(scale)
    if amax <= _SMALLEST_AMAX:
        return torch.zeros_like(values)
    factor = float(np.float32(INT8_MAX) / amax)
    return (values * factor).round().clamp(-INT8_MAX - 1, INT8_MAX) / factor


def round_nvfp4(values: torch.Tensor, scale: float) -> torch.Tensor:
    """Float32 values [..., I] -> E2M1 codes, an E4M3 scale for 16 columns, and `scale`."""
    size = values.shape[-1]
    padded = torch.nn.functional.pad(values, (0, -size % FP4_BLOCK))
    blocks = padded.reshape(*padded.shape[:-1], -1, FP4_BLOCK)
    ratio = blocks.abs().amax(-1, keepdim=True) / (E2M1_MAX * scale)
    fine = ratio.clamp(2.0**-9, E4M3_MAX).to(torch.float8_e4m3fn).to(torch.float32) * scale
    scaled = blocks / fine
    borders = torch.tensor(_E2M1_BORDERS, device=values.device)
    table = torch.tensor(_E2M1_VALUES, device=values.device)
    magnitude = scaled.abs()
    code = torch.bucketize(magnitude, borders)  # a tie goes down
    code += (torch.isin(magnitude, borders) & (code % 2 == 1)).to(code.dtype)  # or to the even
    rounded = table[code.clamp(max=len(_E2M1_VALUES) - 1)] * fine
    signed: torch.Tensor = rounded * scaled.sign()
    return signed.flatten(-2)[..., :size]


_ROUNDS: Mapping[LayoutName, Round] = {
    "fp8": round_fp8,
    "int4-fp8": round_fp8,
    "nvfp4-32": round_fp8,
    "int8": round_int8,
    "nvfp4": round_nvfp4,
}


@dataclass(frozen=True, slots=True)
class Rounding:
    """What happens to the input of one linear: a factor [I] for its columns, then rounding."""

    round: Round | None
    scale: float
    smoothing: torch.Tensor | None = None

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        if self.smoothing is not None:
            values = values * self.smoothing.to(values.dtype)
        if self.round is None:
            return values
        return self.round(values.to(torch.float32), self.scale).to(values.dtype)


class Simulation:
    """Inputs that are rounded, until it is removed."""

    def __init__(self, undo: list[Callable[[], None]]) -> None:
        self._undo = undo

    def __len__(self) -> int:
        """How many modules round their inputs."""
        return len(self._undo)

    def remove(self) -> None:
        """Let the model compute as it did before."""
        while self._undo:
            self._undo.pop()()


def simulate(
    model: PreTrainedModel,
    places: Places,
    scheme: SchemeEvidence,
    arrangement: Mapping[Place, Value],
) -> Simulation:
    """Round the inputs of every linear whose weight comes from a quantized one of `scheme`.

    Raises `UsageError` for an input scale that is not there or cannot be rounded by, and where
    experts that share an input disagree on its scale.
    """
    linears: dict[str, Rounding] = {}
    experts: dict[str, dict[tuple[str, int], Rounding]] = defaultdict(dict)
    with TensorReader() as reader:
        for place, rounding in _roundings(reader, places, scheme, arrangement):
            owner, _, leaf = place.parameter.rpartition(".")
            if place.expert is None:
                linears[owner] = rounding
                continue
            known = experts[owner].setdefault((leaf, place.expert), rounding)
            if (known.round, known.scale) != (rounding.round, rounding.scale):
                raise UsageError(
                    f"gate and up of expert {place.expert} of {owner} have different input scales",
                    "No model that computes both at once can round their inputs apart.",
                )
    undo = [_hook(model.get_submodule(owner), rounding) for owner, rounding in linears.items()]
    if experts:
        use_plain_experts(model)
    for owner, roundings in experts.items():
        undo.append(_wrap(model.get_submodule(owner), roundings))
    return Simulation(undo)


def use_plain_experts(model: PreTrainedModel) -> None:
    """Let experts compute by F.linear, which the faster ways to compute them do not call. The
    reference of a comparison has to compute in the same way."""
    choose = getattr(model, "set_experts_implementation", None)
    if choose is not None:  # transformers 5
        choose("eager")


def _roundings(
    reader: TensorReader,
    places: Places,
    scheme: SchemeEvidence,
    arrangement: Mapping[Place, Value],
) -> Any:
    """(place, rounding) of every linear that does something to its input."""
    quantized = {m.weight: m for m in scheme.coverage.modules.values() if m.quantized}
    shards = {shard.name: shard for shard in scheme.checkpoint.shards}
    paths = {shard.path for shard in scheme.checkpoint.shards}
    for place, value in arrangement.items():
        module = quantized.get(value.tensor)
        if module is None or value.shard.path not in paths:
            continue
        beside = scheme.scales.get(module.name, {})
        given, factor = beside.get("input_scale"), beside.get("pre_quant_scale")
        smoothing = None
        if factor is not None:
            columns = reader.array(shards[factor.shard], factor.name).reshape(-1)
            device = places.tensors[place.parameter].device
            smoothing = torch.from_numpy(columns.astype(np.float32)).to(device)
        rounds, scale = None, 1.0
        if given is not None:
            rounds = _ROUNDS[scheme.layouts[module.key].names[0]]
            scale = float(reader.array(shards[given.shard], given.name).reshape(-1)[0])
            if not 0 <= scale < math.inf:
                raise odd(scheme, given.name, f"is {scale:g}, and inputs cannot be rounded by that")
        elif _is_promised(scheme, module.name):
            raise odd(scheme, value.tensor, "comes without the input_scale that rounds its inputs")
        if rounds is not None or smoothing is not None:
            yield place, Rounding(rounds, scale, smoothing)


def _is_promised(scheme: SchemeEvidence, module: str) -> bool:
    """Whether the algorithm that the config gives to a module rounds inputs by a stored scale."""
    algorithm = known_algorithm(module_algorithm(scheme.quantization, module))
    return algorithm is not None and "input_scale" in algorithm.scales


def _hook(module: torch.nn.Module, rounding: Rounding) -> Callable[[], None]:
    def before(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (rounding(inputs[0]), *inputs[1:])

    return module.register_forward_pre_hook(before).remove


def _wrap(
    module: torch.nn.Module, roundings: dict[tuple[str, int], Rounding]
) -> Callable[[], None]:
    """Round the inputs of experts whose weights lie in one parameter.

    Their linears are no modules: inside of this module's forward, calls of F.linear are told
    apart by where their weight lies.
    """
    original = module.forward
    addresses = {
        getattr(module, leaf)[number].data_ptr(): rounding
        for (leaf, number), rounding in roundings.items()
    }

    def forward(*arguments: Any, **keywords: Any) -> Any:
        with _RoundedLinears(addresses):
            return original(*arguments, **keywords)

    module.forward = forward
    return partial(delattr, module, "forward")


class _RoundedLinears(TorchFunctionMode):
    def __init__(self, addresses: dict[int, Rounding]) -> None:
        super().__init__()
        self._addresses = addresses

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.nn.functional.linear:
            rounding = self._addresses.get(args[1].data_ptr())
            if rounding is not None:
                args = (rounding(args[0]), *args[1:])
        return function(*args, **(kwargs or {}))
