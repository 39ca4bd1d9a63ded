"""What needs torch: loading a quantized checkpoint right, and probing it.

The only package that imports torch, transformers or ModelOpt. Nobody else in ckptdiff imports
it: people do (`from ckptdiff.runtime import load_model`), and jobs start its modules as child
processes. Names are resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptdiff.runtime.loading import load_model as load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from ckptdiff.runtime.requirements import require_probe

        require_probe()
        from ckptdiff.runtime.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
