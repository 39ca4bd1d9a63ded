"""A model without weights: modules and computed buffers, every parameter still to be filled.

Parameters lie on the meta device, so a model of any size is built in no memory; they are
allocated on their device one at a time. Nothing of a checkpoint but its configs is read here.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

import torch
import transformers
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel

from ckptdiff.errors import UsageError
from ckptdiff.formats.configs import CONFIG_NAME, parse_model_config
from ckptdiff.formats.documents import read_object
from ckptdiff.records.checkpoint import Defect, Unread

# What keeps parameters off the CPU is a patch of torch itself, for all threads.
_BUILDING = threading.Lock()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def skeleton(
    path: Path, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model that config.json at `path` describes, in `dtype` (None: what the config says).

    Raises `UsageError` when there is no such class, or it asks for code of its own.
    """
    config = read_config(path, trust_remote_code)
    if dtype is None:
        dtype = config_dtype(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    for part in getattr(config, "sub_configs", None) or ():
        # Parts of a model are made in the dtype of their own configs.
        if isinstance(found := getattr(config, part, None), PretrainedConfig):
            found.dtype = dtype
    name = _architecture(path)
    known = getattr(transformers, name, None)
    # Buffers are computed from the config and are small: they are made on the CPU.
    with _BUILDING, init_empty_weights(include_buffers=False):
        if isinstance(known, type) and issubclass(known, PreTrainedModel):
            model = known._from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        elif trust_remote_code:
            model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype, trust_remote_code=True
            )
        else:
            raise UsageError(
                f"{path} is a {name or 'model without architecture'}, which transformers "
                f"{transformers.__version__} does not have",
                "Install a transformers that has it.",
            )
    with _BUILDING:
        model.tie_weights()
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
    assert isinstance(model, PreTrainedModel)
    model.eval()  # type: ignore[no-untyped-call]
    model.requires_grad_(False)
    return model


def read_config(path: Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """config.json as transformers understands it. Raises `UsageError` when it does not."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(
                f"the model in {path} has code of its own, which is not run unasked",
                "Look at its .py files, then give --trust-remote-code to reexport or sweep, "
                "trust_remote_code=True to load_model.",
            ) from error
        raise UsageError(
            f"the model in {path} cannot be built: {str(error).splitlines()[0]}",
            "Check its config.json, and whether this transformers knows the model.",
        ) from error
    return config


def _architecture(path: Path) -> str:
    """The class that config.json names: some configs of transformers 4 do not tell."""
    document = read_object(path, CONFIG_NAME)
    if isinstance(document, Defect | Unread):
        return ""
    return next(iter(parse_model_config(document).architectures), "")


def config_dtype(config: PretrainedConfig) -> torch.dtype:
    """The dtype that the config states, of the language part where it has several."""
    for part in (config, config.get_text_config()):
        stated = getattr(part, "dtype", None)
        stated = DTYPES.get(stated) if isinstance(stated, str) else stated
        if isinstance(stated, torch.dtype):
            return stated
    return torch.float32


def allocate(model: PreTrainedModel, device: torch.device) -> None:
    """Give every parameter memory on `device`, tied ones once, and move the buffers there."""
    wide = _kept_wide(model)
    with _BUILDING:
        made: dict[int, torch.nn.Parameter] = {}
        for module_name, module in model.named_modules(remove_duplicate=False):
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if id(parameter) not in made:
                    full = f"{module_name}.{name}"
                    dtype = torch.float32 if wide and wide.search(full) else parameter.dtype
                    empty = torch.empty(parameter.shape, dtype=dtype, device=device)
                    new = torch.nn.Parameter(empty, requires_grad=False)
                    made[id(parameter)] = made[id(new)] = new
                setattr(module, name, made[id(parameter)])
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(device)


def _kept_wide(model: PreTrainedModel) -> re.Pattern[str] | None:
    """Parameters that `from_pretrained` keeps in float32 in a model of half precision."""
    if model.dtype not in (torch.float16, torch.bfloat16):
        return None
    names = list(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if model.dtype == torch.float16:
        names += list(getattr(model, "_keep_in_fp32_modules", None) or ())
    if not names:
        return None
    return re.compile("|".join(rf"(?:^|\.){name}(?:\.|$)".replace("*", r"\w+") for name in names))
