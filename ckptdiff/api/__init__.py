"""The verbs: all that a front end, a script or a test may call.

Every command of the CLI is one function here with the same options; what it prints is the
report that the function returns. Rules, jobs and reports meet here and nowhere else. A verb
is imported when it is first used, because a gate that runs often should start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptdiff.api.baselining import PlannedBaseline as PlannedBaseline
    from ckptdiff.api.baselining import execute_baseline as execute_baseline
    from ckptdiff.api.baselining import plan_baseline as plan_baseline
    from ckptdiff.api.checking import check as check
    from ckptdiff.api.common import load_settings as load_settings
    from ckptdiff.api.common import refuse_inside as refuse_inside
    from ckptdiff.api.comparing import diff as diff
    from ckptdiff.api.composing import Planned as Planned
    from ckptdiff.api.composing import execute as execute
    from ckptdiff.api.composing import plan_reexport as plan_reexport
    from ckptdiff.api.composing import plan_sweep as plan_sweep
    from ckptdiff.api.hashing import hash as hash
    from ckptdiff.api.hashing import lock as lock
    from ckptdiff.api.hashing import verify as verify
    from ckptdiff.api.inspecting import details as details
    from ckptdiff.api.inspecting import differences as differences
    from ckptdiff.api.inspecting import module as module
    from ckptdiff.api.inspecting import overlap as overlap
    from ckptdiff.api.inspecting import values as values
    from ckptdiff.api.inventory import layers as layers
    from ckptdiff.api.inventory import scan as scan
    from ckptdiff.api.manual import doctor as doctor
    from ckptdiff.api.manual import rule_table as rule_table
    from ckptdiff.api.probing import probe as probe
    from ckptdiff.api.probing import probe_needs as probe_needs
    from ckptdiff.api.rendering import Format as Format
    from ckptdiff.api.rendering import exit_code as exit_code
    from ckptdiff.api.rendering import render as render
    from ckptdiff.api.watching import snapshot as snapshot
    from ckptdiff.api.writing import write_file as write_file
    from ckptdiff.records.settings import Requirement as Requirement

_HOMES = {
    "Format": "rendering",
    "Planned": "composing",
    "PlannedBaseline": "baselining",
    "Requirement": "checking",
    "check": "checking",
    "details": "inspecting",
    "differences": "inspecting",
    "diff": "comparing",
    "doctor": "manual",
    "execute": "composing",
    "execute_baseline": "baselining",
    "exit_code": "rendering",
    "hash": "hashing",
    "layers": "inventory",
    "load_settings": "common",
    "lock": "hashing",
    "module": "inspecting",
    "overlap": "inspecting",
    "plan_baseline": "baselining",
    "plan_reexport": "composing",
    "plan_sweep": "composing",
    "probe": "probing",
    "probe_needs": "probing",
    "refuse_inside": "common",
    "render": "rendering",
    "rule_table": "manual",
    "scan": "inventory",
    "snapshot": "watching",
    "values": "inspecting",
    "verify": "hashing",
    "write_file": "writing",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
