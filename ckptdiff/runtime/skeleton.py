"""A model without weights: modules and computed buffers, every parameter still to be filled.

Parameters lie on the meta device, so a model of any size is built in no memory; they are
allocated on their device one at a time. Nothing of a checkpoint but its configs is read here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel

from ckptdiff.errors import CapabilityError, CkptdiffError, UsageError
from ckptdiff.formats.configs import CONFIG_NAME, parse_model_config
from ckptdiff.formats.documents import Misfit, read_object
from ckptdiff.records.checkpoint import Defect, Unread
from ckptdiff.runtime.failures import first_line, is_out_of_memory
from ckptdiff.runtime.own_code import own_code, refuses_own_code

# What keeps parameters off the CPU is a patch of torch itself, for all threads.
_BUILDING = threading.Lock()
_GENERATION = "generation_config.json"
# Settings that no logits depend on: of storing, training and generating.
_IDLE = re.compile(
    r"dtype|torch_dtype|quantization_config|transformers_version|_name_or_path|architectures"
    r"|use_cache|(bos|eos|pad)_token_id|initializer_range|\w*dropout"
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def skeleton(
    path: Path, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model that config.json at `path` describes, in `dtype` (None: what the config says).

    Raises `UsageError` when there is no such class, it asks for code of its own, or the configs
    describe nothing that can be built, `CapabilityError` when there is no memory for that.
    """
    config, name = _described(path, trust_remote_code)
    if dtype is None:
        dtype = config_dtype(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    for part in getattr(config, "sub_configs", None) or ():
        # Parts of a model are made in the dtype of their own configs.
        if isinstance(found := getattr(config, part, None), PretrainedConfig):
            found.dtype = dtype
    known = getattr(transformers, name, None)
    try:
        # Buffers are computed from the config and are small: they are made on the CPU.
        with _building(), init_empty_weights(include_buffers=False):
            if isinstance(known, type) and issubclass(known, PreTrainedModel):
                model = known._from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
            elif trust_remote_code:
                model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                    config, dtype=dtype, trust_remote_code=True
                )
            elif getattr(config, "auto_map", None):
                raise own_code("model", path)
            else:
                raise UsageError(
                    f"{path} is a {name or 'model without architecture'}, which transformers "
                    f"{transformers.__version__} does not have",
                    "Install a transformers that has it.",
                )
        with _building():
            model.tie_weights()
        if next(model.parameters(), None) is None:
            raise ValueError(f"a {name} has no parameters")
    except CkptdiffError:
        raise
    except Exception as error:  # what a config says is computed with before it is checked
        if is_out_of_memory(error):
            raise CapabilityError(
                f"there is too little memory to build the model in {path}: {first_line(error)}",
                "Check the sizes in its config.json.",
            ) from error
        raise _unbuildable(path, error) from error
    if (path / _GENERATION).is_file():
        try:
            model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
        except Exception as error:
            raise UsageError(
                f"{path / _GENERATION} cannot be understood: {first_line(error)}",
                "Take the base's, or remove it.",
            ) from error
    assert isinstance(model, PreTrainedModel)
    model.eval()  # type: ignore[no-untyped-call]
    model.requires_grad_(False)
    return model


def read_config(path: Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """config.json as transformers understands it. Raises `UsageError` when it does not."""
    return _described(path, trust_remote_code)[0]


def _described(path: Path, trust_remote_code: bool) -> tuple[PretrainedConfig, str]:
    """The config, and the class that it names."""
    name = _architecture(path)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # a config can be wrong in any way
        if refuses_own_code(error):
            raise own_code("model", path) from error
        raise _unbuildable(path, error) from error
    return config, name


def difference(config: PretrainedConfig, reference: PretrainedConfig) -> str | None:
    """How the model of one config is another than that of a reference with the same weights; None
    when both compute the same. Raises `UsageError` for settings that nobody can compare."""
    try:
        mine, theirs = (dict(_settings(each.to_dict())) for each in (config, reference))
        for name in sorted(mine.keys() | theirs.keys()):
            here, there = mine.get(name), theirs.get(name)
            if here != there:
                known_by = name if len(name) < 100 else f"…{name[-99:]}"
                return f"{known_by} is {shortened(here)}, and {shortened(there)} there"
    except RecursionError as error:
        raise UsageError("its config.json is nested too deep", "Take the base's.") from error
    return None


def _settings(settings: Mapping[Any, Any], within: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of all that a model computes with."""
    for name, value in settings.items():
        full = f"{within}{name}"
        if isinstance(value, dict) and name != "quantization_config":
            yield from _settings(value, f"{full}.")
        elif not _IDLE.fullmatch(str(name)):
            yield full, value


@contextmanager
def _building() -> Iterator[None]:
    """Models are built and allocated one at a time, and in memory that nobody fills: torch's
    deterministic mode would write NaN into all of it, although parameters are thrown away as
    they are made and, once allocated, are taken from a checkpoint to the last element."""
    settings: Any = torch.utils.deterministic
    with _BUILDING:
        filled = settings.fill_uninitialized_memory
        settings.fill_uninitialized_memory = False
        try:
            yield
        finally:
            settings.fill_uninitialized_memory = filled


def _unbuildable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"the model in {path} cannot be built: {first_line(error)}",
        "Check its config.json, and whether this transformers knows the model.",
    )


def _architecture(path: Path) -> str:
    """The class that config.json names: some configs of transformers 4 do not tell."""
    document = read_object(path, CONFIG_NAME)
    if isinstance(document, Defect | Unread):
        return ""
    try:
        return next(iter(parse_model_config(document).architectures), "")
    except Misfit as error:
        raise _unbuildable(path, error) from error


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
    with _building():
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
