"""Whether a model fits: what it needs, and what is free, before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from ckptdiff.errors import CapabilityError
from ckptdiff.report.style import human_bytes
from ckptdiff.runtime.failures import is_out_of_memory

# Activations, logits and chunks on their way come on top of the weights.
_ALLOWANCE = 1.1


def fitting_dtype(
    model: PreTrainedModel, device: torch.device, wanted: torch.dtype | None
) -> torch.dtype:
    """The dtype to compute in: what is wanted, else float32 where it fits, else bfloat16.

    Raises `CapabilityError` with the estimate when the model does not fit. `model` has its
    parameters on the meta device.
    """
    free = free_bytes(device)
    candidates = (wanted,) if wanted else (torch.float32, torch.bfloat16)
    needed = 0
    for dtype in candidates:
        needed = needed_bytes(model, dtype)
        if needed <= free:
            return dtype
    raise CapabilityError(
        f"the model needs {human_bytes(needed)} in {str(dtype).removeprefix('torch.')}, and "
        f"{human_bytes(free)} are free on {device}",
        "Free some memory, or name another --device or a smaller --dtype.",
    )


def needed_bytes(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """An estimate of what computing with the model takes, tied weights counted once."""
    elements = sum(parameter.numel() for parameter in model.parameters())
    return int(elements * dtype.itemsize * _ALLOWANCE)


def free_bytes(device: torch.device) -> int:
    """What a process may still allocate on a device; 0 when even asking finds no room there."""
    if device.type == "cuda":
        try:
            return int(torch.cuda.mem_get_info(device)[0])
        except RuntimeError as error:
            if is_out_of_memory(error):  # a context takes half a GB itself
                return 0
            raise
    limits = [_available()]
    root = Path("/sys/fs/cgroup")
    maximum, used = _number(root / "memory.max"), _number(root / "memory.current")
    if maximum is not None and used is not None:
        limits.append(maximum - used + _reclaimable(root))
    return min(limits)


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 62  # an old kernel: the allocator will tell


def _reclaimable(root: Path) -> int:
    """Page cache that a container's use counts and that gives way."""
    try:
        lines = (root / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = dict(line.split() for line in lines if line.count(" ") == 1)
    return int(found.get("inactive_file", 0)) + int(found.get("active_file", 0))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
