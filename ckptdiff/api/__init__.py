"""The verbs: all that a front end, a script or a test may call.

Every command of the CLI is one function here with the same options; what it prints is the
report that the function returns. Rules, jobs and reports meet here and nowhere else. A verb
is imported when it is first used, because a gate that runs often should start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptdiff.api.checking import Requirement as Requirement
    from ckptdiff.api.checking import check as check
    from ckptdiff.api.common import load_settings as load_settings
    from ckptdiff.api.common import refuse_inside as refuse_inside
    from ckptdiff.api.hashing import hash as hash
    from ckptdiff.api.hashing import lock as lock
    from ckptdiff.api.hashing import verify as verify
    from ckptdiff.api.inspecting import details as details
    from ckptdiff.api.inspecting import module as module
    from ckptdiff.api.inspecting import overlap as overlap
    from ckptdiff.api.inspecting import values as values
    from ckptdiff.api.inventory import layers as layers
    from ckptdiff.api.inventory import scan as scan
    from ckptdiff.api.manual import doctor as doctor
    from ckptdiff.api.manual import rule_table as rule_table
    from ckptdiff.api.rendering import Format as Format
    from ckptdiff.api.rendering import exit_code as exit_code
    from ckptdiff.api.rendering import render as render
    from ckptdiff.api.watching import snapshot as snapshot
    from ckptdiff.api.writing import write_file as write_file

_HOMES = {
    "Format": "rendering",
    "Requirement": "checking",
    "check": "checking",
    "details": "inspecting",
    "doctor": "manual",
    "exit_code": "rendering",
    "hash": "hashing",
    "layers": "inventory",
    "load_settings": "common",
    "lock": "hashing",
    "module": "inspecting",
    "overlap": "inspecting",
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
