"""The committed JSON Schemas are those of the records, and reports follow them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

import ckptdiff
from ckptdiff.report.json import SCHEMAS, json_schema, schema_path, to_json


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_committed_schema_is_that_of_the_records(name: str) -> None:
    regenerate = 'python -c "from ckptdiff.report.json import write_schemas; write_schemas()"'
    assert json.loads(schema_path(name).read_text()) == json_schema(name), regenerate


@pytest.mark.parametrize("verb", [ckptdiff.check, ckptdiff.scan])
def test_reports_follow_their_schema(bug: Path, verb: object) -> None:
    report = verb(bug)  # type: ignore[operator]
    document = json.loads(to_json(report))
    jsonschema.validate(document, json_schema(document["schema"]))


def test_keys_are_those_of_the_contract(bug: Path) -> None:
    document = json.loads(to_json(ckptdiff.check(bug)))
    assert list(document) == [
        "schema", "tool", "root", "config", "base", "verdict", "schemes", "identity", "findings",
        "skipped", "ignored", "unread", "passed_over", "counts",
    ]  # fmt: skip
    assert list(document["verdict"]) == ["status", "complete", "sentence", "safe"]
    assert list(document["schemes"][0]) == [
        "id", "family", "algo", "producer", "bytes", "tensors", "modules", "declared", "actual",
        "dtypes", "fingerprint", "identity", "status", "proof",
    ]  # fmt: skip
    assert list(document["findings"][0]) == [
        "code", "name", "severity", "schemes", "message", "next_step", "expected", "actual",
        "locations", "fingerprint",
    ]  # fmt: skip
    assert list(document["identity"][0]) == ["letter", "fingerprint", "schemes", "bytes"]


def test_everything_beyond_ascii_is_escaped(tmp_path: Path) -> None:
    assert to_json({"name": "a\ud800\x1b\u202eb"}).isascii()
