"""The packages of the probe extra, asked for before something needs them.

Everything in this package may import torch at its top except `__init__`, `child`, `probe` and
this.
"""

from __future__ import annotations

from importlib.util import find_spec

from ckptdiff.errors import CapabilityError

PACKAGES = ("torch", "transformers", "accelerate")


def require_probe() -> None:
    """Raise `CapabilityError` when the extra is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise CapabilityError(
            f"loading a model needs {' and '.join(missing)}", "pip install 'ckptdiff[probe]'"
        )
