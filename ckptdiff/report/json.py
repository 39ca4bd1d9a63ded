"""Reports as JSON, and the JSON Schema of each, generated from the record classes."""

from __future__ import annotations

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from ckptdiff.records import delta, doctor, hashes, layers, plan, probe
from ckptdiff.records import report as reports

SCHEMAS: dict[str, type] = {
    reports.CHECK_SCHEMA: reports.CheckReport,
    reports.SCAN_SCHEMA: reports.ScanReport,
    layers.LAYERS_SCHEMA: layers.LayersReport,
    delta.DIFF_SCHEMA: delta.DiffReport,
    hashes.HASH_SCHEMA: hashes.HashReport,
    hashes.VERIFY_SCHEMA: hashes.VerifyReport,
    doctor.DOCTOR_SCHEMA: doctor.DoctorReport,
    plan.PLAN_SCHEMA: plan.PlanReport,
    probe.PROBE_SCHEMA: probe.ProbeReport,
}


def to_json(report: object) -> bytes:
    """A report as UTF-8 JSON, two spaces of indent, keys in the order of the records.

    Everything beyond ASCII is escaped, so that a name with a lone surrogate or an escape
    code survives every terminal and every parser.
    """
    return (json.dumps(msgspec.to_builtins(report), indent=2) + "\n").encode("ascii")


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the report that is called `name`, such as "ckptdiff.check/1"."""
    # Through JSON, where the default of a tuple is an array.
    text = json.dumps(msgspec.json.schema(SCHEMAS[name]))
    schema: dict[str, Any] = json.loads(text, object_hook=_flush)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **schema}


def _flush(part: dict[str, Any]) -> dict[str, Any]:
    """A description without the indentation of its docstring, which older msgspec leaves in."""
    if isinstance(text := part.get("description"), str):
        part["description"] = cleandoc(text)
    return part


def schema_path(name: str) -> Path:
    """Where the committed schema of a report lies, inside the package."""
    return Path(__file__).parent / "schemas" / f"{name.replace('/', '-')}.json"


def write_schemas() -> None:
    """Write the committed schemas anew; a test holds them equal to the records."""
    for name in SCHEMAS:
        path = schema_path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(json_schema(name), indent=2) + "\n")
