"""The full-precision model that an export starts from, on whatever this machine has."""

from __future__ import annotations

import math
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from shlex import quote
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from ckptdiff.errors import UsageError
from ckptdiff.formats.dtypes import BITS
from ckptdiff.runtime.export.progress import Progress, hearing
from ckptdiff.runtime.failures import first_line
from ckptdiff.runtime.skeleton import read_config
from ckptdiff.runtime.values import TORCH

# Calibration needs room for activations beside the weights.
_ROOM = 1.4
# What reads a tensor in transformers 5.
_READ = "_materialize_copy"


def load(path: Path, dtype: str, trust_remote_code: bool, progress: Progress) -> PreTrainedModel:
    """The model at `path` in eval mode, its weights in `dtype` (as safetensors spell it).

    On one GPU where it fits there, spread over all where it does not, else on the CPU. By
    transformers' own loader, because ModelOpt asks the model how its tensors were renamed on
    loading. Reads safetensors alone. Raises `UsageError` when transformers has no such model.
    """
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    with progress.during("load", size, "bytes"), _hearing_reads(progress):
        config = read_config(path, trust_remote_code)
        try:
            model: PreTrainedModel = _class(config, trust_remote_code, path).from_pretrained(
                path,
                dtype=TORCH[dtype],
                device_map=_placement(size),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
            )
        except (OSError, ValueError, ImportError) as error:
            raise UsageError(
                f"{path} cannot be loaded: {first_line(error)}",
                f"`ckptdiff check {quote(str(path))}` says what is wrong with it.",
            ) from error
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _hearing_reads(progress: Progress) -> AbstractContextManager[None]:
    """Say so whenever transformers has read a tensor."""
    telling = threading.Lock()  # tensors are read by several threads

    def tell(tensor: Any) -> None:
        with telling:
            progress.advance(_stored_bytes(tensor))

    return hearing(getattr(transformers, "core_model_loading", None), _READ, tell)


def _stored_bytes(tensor: Any) -> int:
    """The size of a tensor in its file, of which safetensors gives a handle."""
    if isinstance(tensor, torch.Tensor):
        return tensor.nbytes
    elements: int = math.prod(tensor.get_shape())
    return elements * BITS.get(tensor.get_dtype(), 0) // 8


def place_of(model: PreTrainedModel) -> str:
    """Where the model lies, in words."""
    kinds = {parameter.device for parameter in model.parameters()}
    if {kind.type for kind in kinds} == {"cuda"}:
        names = sorted(torch.cuda.get_device_name(kind) for kind in kinds)
        return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"
    return "+".join(sorted({kind.type for kind in kinds}))


def _class(config: Any, trust_remote_code: bool, path: Path) -> Any:
    name = (config.architectures or [""])[0]
    known = getattr(transformers, name, None)
    if isinstance(known, type) and issubclass(known, PreTrainedModel):
        return known
    if trust_remote_code:
        return transformers.AutoModelForCausalLM
    raise UsageError(
        f"{path} is a {name or 'model without architecture'}, which transformers "
        f"{transformers.__version__} does not have",
        "--trust-remote-code runs the code that it brings."
        if getattr(config, "auto_map", None)
        else "Install a transformers that has it.",
    )


def _placement(size: int) -> str | dict[str, int] | None:
    """`device_map` for a checkpoint of this many bytes."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return None
    free, _ = torch.cuda.mem_get_info(0)
    return {"": 0} if count == 1 or size * _ROOM < free else "auto"
