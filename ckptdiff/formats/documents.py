"""JSON documents from strangers: parsed into plain values, or a defect with its place.

Everything that reads a config, an index or a manifest comes through here, so that no
document (deep nesting, endless integers, a list where a map belongs) ends a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptdiff.records.checkpoint import Defect, Unread
from ckptdiff.sources.local import NotRegular, Unreadable, read_document

JsonObject = Mapping[str, Any]


class Misfit(ValueError):
    """A field of a document has a type or value that cannot be used."""


def read_object(directory: Path, name: str) -> JsonObject | Defect | Unread:
    """The JSON object in `directory/name`; a record of what is wrong otherwise."""
    try:
        raw = read_document(directory / name)
    except NotRegular as error:
        return Defect("malformed", f"is {error.reason}, not a regular file", name)
    except Unreadable as error:
        return Unread(name, error.reason)
    return parse_object(raw, name)


def parse_object(raw: bytes, name: str) -> JsonObject | Defect:
    """The JSON object that `raw` holds, or the defect that prevents it."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Defect("malformed", "is not UTF-8", name, offset=error.start)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # The decoder counts characters; people look for bytes.
        offset = len(text[: error.pos].encode("utf-8", "surrogatepass"))
        return Defect("malformed", f"is not JSON: {error.msg.lower()}", name, offset=offset)
    except MemoryError:
        return Defect("malformed", "needs more memory than there is", name)
    except RecursionError:
        return Defect("malformed", "is nested too deeply to be a document of a checkpoint", name)
    except ValueError:
        return Defect("malformed", "holds an integer with thousands of digits", name)
    if not isinstance(value, dict):
        return Defect(
            "malformed",
            "holds no JSON object",
            name,
            offset=0,
            expected="object",
            actual=json_type(value),
        )
    return value


def json_type(value: object) -> str:
    """What JSON calls the type of a parsed value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def text_of(document: JsonObject, key: str) -> str | None:
    """An optional string. Raises `Misfit` for any other type."""
    value = document.get(key)
    if value is None or isinstance(value, str):
        return value
    raise Misfit(f'"{key}" is of type {json_type(value)}, expected a string')


def int_of(document: JsonObject, key: str) -> int | None:
    """An optional integer that fits in 64 bits. Raises `Misfit` for anything else."""
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    raise Misfit(f'"{key}" is of type {json_type(value)}, expected a 64-bit integer')


def float_of(document: JsonObject, key: str) -> float | None:
    """An optional finite number. Raises `Misfit` for anything else."""
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    raise Misfit(f'"{key}" is of type {json_type(value)}, expected a finite number')


def object_of(document: JsonObject, key: str) -> JsonObject:
    """An optional object, {} when absent. Raises `Misfit` for any other type."""
    value = document.get(key)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise Misfit(f'"{key}" is of type {json_type(value)}, expected an object')


def texts_of(document: JsonObject, key: str) -> tuple[str, ...]:
    """An optional list of strings, () when absent. Raises `Misfit` for anything else."""
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise Misfit(f'"{key}" is of type {json_type(value)}, expected a list of strings')
