"""ckptdiff: the linter, differ and repair kit for sweeps of quantized checkpoints.

The public names are resolved when they are first used, so that importing the package
costs nothing:

>>> import ckptdiff
>>> report = ckptdiff.check("models/quantized", base="models/base")  # doctest: +SKIP
>>> report.verdict.status                                            # doctest: +SKIP
'pass'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ckptdiff.api import check, exit_code, render, rules, scan
    from ckptdiff.errors import CkptdiffError
    from ckptdiff.records.report import CheckReport, ScanReport

_HOMES = {
    "check": "ckptdiff.api",
    "exit_code": "ckptdiff.api",
    "render": "ckptdiff.api",
    "rules": "ckptdiff.api",
    "scan": "ckptdiff.api",
    "CkptdiffError": "ckptdiff.errors",
    "CheckReport": "ckptdiff.records.report",
    "ScanReport": "ckptdiff.records.report",
}

__all__ = [
    "CheckReport",
    "CkptdiffError",
    "ScanReport",
    "__version__",
    "check",
    "exit_code",
    "render",
    "rules",
    "scan",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
