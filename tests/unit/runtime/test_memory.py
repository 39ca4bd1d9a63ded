"""What is free where a model shall go, on a GPU that has no room left."""

from __future__ import annotations

import pytest
import torch

from ckptdiff.runtime.memory import free_bytes

GPU = torch.device("cuda", 0)


def test_a_gpu_without_room_for_a_context_has_nothing_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(device: torch.device) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    assert free_bytes(GPU) == 0


def test_a_broken_gpu_is_not_called_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    with pytest.raises(torch.AcceleratorError, match="launch failure"):
        free_bytes(GPU)


def test_free_bytes_of_a_gpu_are_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 << 30, 80 << 30))
    assert free_bytes(GPU) == 3 << 30
