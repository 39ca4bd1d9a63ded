"""`ckptdiff.toml`: a team's decisions, each with its reason, kept outside the sweep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ckptdiff.errors import SettingsError
from ckptdiff.records.finding import Ignore
from ckptdiff.records.settings import FAIL_ON, REQUIREMENTS, Settings
from ckptdiff.sources.local import Unreadable, read_document

SETTINGS_NAME = "ckptdiff.toml"

_EXAMPLE = """\
base = "../base"
fail_on = "warning"
require = ["base", "manifest"]
expect = 10

[[ignore]]
code = "CK304"
schemes = ["top10_v2"]
reason = "renamed by hand, see issue 12"
"""


def find_settings(start: Path, root: Path) -> Path | None:
    """The nearest ckptdiff.toml from `start` upwards that does not lie inside `root`.

    A sweep must not be able to silence its own findings.
    """
    # Path.resolve would raise for a loop of links, which is for others to report.
    inside, here = Path(os.path.realpath(root)), Path(os.path.realpath(start))
    for directory in (here, *here.parents):
        candidate = directory / SETTINGS_NAME
        # Settings that cannot be read must not be taken for none: reading them tells why.
        if not directory.is_relative_to(inside) and os.path.lexists(candidate):
            return candidate
    return None


def read_settings(path: Path) -> Settings:
    """The settings in `path`. Raises `SettingsError` for anything that is not understood."""
    import tomllib  # most runs have no settings

    try:
        document = tomllib.loads(read_document(path).decode())
    except Unreadable as error:
        raise SettingsError(f"{path}: {error.reason}", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", f"An example:\n\n{_EXAMPLE}") from error
    known = {"base", "fail_on", "require", "expect", "select", "ignore"}
    if unknown := sorted(set(document) - known):
        _refuse(path, f"unknown key {unknown[0]!r}")
    base = _text(path, document, "base")
    fail_on = document.get("fail_on")
    if fail_on not in (None, *FAIL_ON):
        _refuse(path, f"fail_on = {fail_on!r}, expected one of {', '.join(FAIL_ON)}")
    require = _texts(path, document, "require")
    if wrong := [item for item in require if item not in REQUIREMENTS]:
        _refuse(path, f"require has {wrong[0]!r}, expected {' or '.join(REQUIREMENTS)}")
    expect = document.get("expect")
    if expect is not None and (not isinstance(expect, int) or isinstance(expect, bool)):
        _refuse(path, "expect is no whole number")
    return Settings(
        path=str(path),
        base=None if base is None else str(path.parent / base),
        fail_on=fail_on,
        require=require,
        expect=expect,
        select=_texts(path, document, "select"),
        ignore=tuple(_ignore(path, item) for item in _tables(path, document, "ignore")),
    )


def _refuse(path: Path, what: str) -> None:
    raise SettingsError(f"{path}: {what}", f"An example:\n\n{_EXAMPLE}")


def _text(path: Path, document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        _refuse(path, f"{key} is no string")
    return value


def _texts(path: Path, document: dict[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _refuse(path, f"{key} is no list of strings")
    return tuple(value)


def _tables(path: Path, document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _refuse(path, f"{key} is no list of tables")
    return list(value)


def _ignore(path: Path, table: dict[str, Any]) -> Ignore:
    if unknown := sorted(set(table) - {"code", "reason", "schemes"}):
        _refuse(path, f"[[ignore]] has the unknown key {unknown[0]!r}")
    code, reason = _text(path, table, "code"), _text(path, table, "reason")
    if not code or not reason or not reason.strip():
        _refuse(path, "every [[ignore]] needs a code and a reason")
    return Ignore(code=code or "", reason=reason or "", schemes=_texts(path, table, "schemes"))
