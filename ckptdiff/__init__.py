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
    from ckptdiff.api import (
        check,
        diff,
        doctor,
        execute,
        execute_baseline,
        exit_code,
        hash,
        layers,
        lock,
        plan_baseline,
        plan_reexport,
        plan_sweep,
        probe,
        render,
        rule_table,
        scan,
        verify,
    )
    from ckptdiff.errors import CkptdiffError
    from ckptdiff.records.delta import DiffReport
    from ckptdiff.records.doctor import DoctorReport
    from ckptdiff.records.export import ExportOptions
    from ckptdiff.records.hashes import HashReport, VerifyReport
    from ckptdiff.records.layers import LayersReport
    from ckptdiff.records.plan import PlanReport
    from ckptdiff.records.probe import ProbeReport
    from ckptdiff.records.report import CheckReport, ScanReport

_HOMES = {
    "check": "ckptdiff.api",
    "diff": "ckptdiff.api",
    "doctor": "ckptdiff.api",
    "execute": "ckptdiff.api",
    "execute_baseline": "ckptdiff.api",
    "exit_code": "ckptdiff.api",
    "hash": "ckptdiff.api",
    "layers": "ckptdiff.api",
    "lock": "ckptdiff.api",
    "plan_baseline": "ckptdiff.api",
    "plan_reexport": "ckptdiff.api",
    "plan_sweep": "ckptdiff.api",
    "probe": "ckptdiff.api",
    "render": "ckptdiff.api",
    "rule_table": "ckptdiff.api",
    "scan": "ckptdiff.api",
    "verify": "ckptdiff.api",
    "CkptdiffError": "ckptdiff.errors",
    "CheckReport": "ckptdiff.records.report",
    "DiffReport": "ckptdiff.records.delta",
    "DoctorReport": "ckptdiff.records.doctor",
    "ExportOptions": "ckptdiff.records.export",
    "HashReport": "ckptdiff.records.hashes",
    "LayersReport": "ckptdiff.records.layers",
    "PlanReport": "ckptdiff.records.plan",
    "ProbeReport": "ckptdiff.records.probe",
    "ScanReport": "ckptdiff.records.report",
    "VerifyReport": "ckptdiff.records.hashes",
}

__all__ = [
    "CheckReport",
    "CkptdiffError",
    "DiffReport",
    "DoctorReport",
    "ExportOptions",
    "HashReport",
    "LayersReport",
    "PlanReport",
    "ProbeReport",
    "ScanReport",
    "VerifyReport",
    "__version__",
    "check",
    "diff",
    "doctor",
    "execute",
    "execute_baseline",
    "exit_code",
    "hash",
    "layers",
    "lock",
    "plan_baseline",
    "plan_reexport",
    "plan_sweep",
    "probe",
    "render",
    "rule_table",
    "scan",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
