"""Configs, indices and manifests that are no JSON, or say what makes no sense."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import check
from forging import DEEP, DIGITS, INDEX, baseline_of, coverage_of, edit, write_one

import ckptdiff

CONTENTS = {
    "nothing": b"",
    "text": b"hello",
    "list": b"[]",
    "string": b'"x"',
    "null": b"null",
    "cut": b'{"a": ',
    "nul": b'{"a": "\0"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "latin-1": b'{"a": "\xe9"}',
    "deep": DEEP,
    "deep-inside": b'{"a": ' + DEEP + b"}",
    "digits": b'{"a": ' + DIGITS + b"}",
}
DOCUMENTS: dict[str, Callable[[Path], Path]] = {
    "config": lambda scheme: scheme / "config.json",
    "quant-config": lambda scheme: scheme / "hf_quant_config.json",
    "index": lambda scheme: scheme / INDEX,
    "coverage": coverage_of,
    "baseline": baseline_of,
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_that_is_no_json_object(tmp_path: Path, document: str) -> None:
    for case, content in CONTENTS.items():
        scheme = write_one(tmp_path / case, shards=2, salt=case)
        DOCUMENTS[document](scheme).write_bytes(content)
    result = check(tmp_path)
    assert result.code == 1
    # Its weights differ from the others', so that nothing is said about several schemes.
    assert {case: result.codes_of(case) for case in CONTENTS} == {
        case: {"CK101"} for case in CONTENTS
    }
    assert result.report["verdict"]["safe"] == []


WRONG: dict[str, list[tuple[str, object]]] = {
    "config": [
        ("architectures", "Llama"),
        ("architectures", [1]),
        ("hidden_size", "big"),
        ("hidden_size", 1.5),
        ("hidden_size", 10**40),
        ("num_hidden_layers", [4]),
        ("text_config", [1]),
        ("quantization_config", "fp8"),
        ("quantization_config.quant_method", 8),
        ("quantization_config.quant_algo", ["FP8"]),
        ("quantization_config.producer", "modelopt"),
        ("quantization_config.config_groups", [1]),
        ("quantization_config.ignore", "lm_head"),
        ("quantization_config.quantized_layers", ["a"]),
    ],
    "quant-config": [
        ("quantization", None),
        ("quantization", "FP8"),
        ("producer", ["modelopt"]),
        ("producer.version", 0.47),
        ("quantization.quant_algo", 8),
        ("quantization.kv_cache_quant_algo", {}),
        ("quantization.group_size", "128"),
        ("quantization.exclude_modules", "lm_head"),
        ("quantization.exclude_modules", [None]),
        ("quantization.quantized_layers", {"a": "FP8"}),
        ("quantization.quantized_layers", {"a": {"quant_algo": 1}}),
    ],
    "index": [
        ("weight_map", None),
        ("weight_map", []),
        ("weight_map.model|norm|weight", 1),
        ("weight_map.model|norm|weight", None),
        ("metadata", []),
        ("metadata.total_size", "big"),
        ("metadata.total_size", 1e300),
    ],
    "coverage": [
        ("baseline_dir", 1),
        ("baseline_manifest", ["a"]),
        ("scheme_name", {}),
        ("top_percent", "50"),
        ("top_percent", True),
        ("coverage_fraction", [0.5]),
        ("num_layers_total", "4"),
        ("num_layers_selected", 1.5),
        ("num_layers_dropped", {}),
        ("selected_layers", None),
        ("selected_layers", {}),
        ("selected_layers", "layers.0"),
        ("selected_layers", [1]),
        ("dropped_layers", [["a"]]),
    ],
    "baseline": [
        ("scheme", "name"),
        ("scheme.name", 1),
        ("autoquant_state", []),
        ("autoquant_state.constraints", 11.0),
        ("autoquant_state.constraints.effective_bits", "11"),
        ("layer_sensitivity", 1),
        ("layer_sensitivity", [1]),
        ("layer_sensitivity", [{"formats": []}]),
        ("layer_sensitivity", {"a": 1}),
        ("layer_sensitivity", {"a": {"formats": "FP8"}}),
        ("layer_sensitivity", {"a": {"rank": "first"}}),
        ("layer_sensitivity", {"a": {"importance": []}}),
        ("sensitivity_ranking", {}),
        ("sensitivity_ranking", [1]),
        ("sensitivity_ranking", [{"importance": 1}]),
    ],
}


def put(document: Any, path: str, value: object) -> None:
    *above, last = (part.replace("|", ".") for part in path.split("."))
    for part in above:
        document = document[part]
    document[last] = value


@pytest.mark.parametrize("document", DOCUMENTS)
def test_field_of_a_wrong_type(tmp_path: Path, document: str) -> None:
    expected = {}
    for number, (path, value) in enumerate(WRONG[document]):
        id = f"s{number}"
        scheme = write_one(tmp_path / id, shards=2, salt=id)
        edit(DOCUMENTS[document](scheme), lambda d, p=path, v=value: put(d, p, v))
        expected[f"{id} {path} = {value!r}"] = {"CK101"}
    result = check(tmp_path)
    assert result.code == 1
    assert {case: result.codes_of(case.split()[0]) for case in expected} == expected


VALUES: tuple[object, ...] = (
    None, True, 0, -1, 10**30, 1.5, 1e308, "", "x", "\ud800\0", [], [[]], [None], {}, {"a": {}},
    {"type": {"type": {"type": 1}}},
)  # fmt: skip


def paths_of(value: object, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value of a JSON document, its first list items only."""
    yield above
    if isinstance(value, dict):
        for key, below in list(value.items())[:12]:
            yield from paths_of(below, (*above, key))
    elif isinstance(value, list):
        for number, below in list(enumerate(value))[:1]:
            yield from paths_of(below, (*above, number))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_value_of_any_field_ends_a_run(sharded: Path, document: str) -> None:
    file = DOCUMENTS[document](sharded / "one")
    original = file.read_text()
    for path in paths_of(json.loads(original)):
        for value in VALUES:
            changed = json.loads(original)
            if path:
                inner = changed
                for part in path[:-1]:
                    inner = inner[part]
                inner[path[-1]] = value
            else:
                changed = value
            file.write_text(json.dumps(changed))
            report = ckptdiff.check(sharded, hashes=False)
            assert ckptdiff.exit_code(report) in (0, 1, 2)


def test_value_nested_nearly_too_deep(tmp_path: Path) -> None:
    for depth in (100, 300, 600, 900, 980, 990):
        scheme = write_one(tmp_path / f"s{depth}", salt=str(depth))
        value = '{"type":' * depth + "1" + "}" * depth
        edit(scheme / "config.json", lambda d: d["quantization_config"].update(kv_cache_scheme=0))
        config = scheme / "config.json"
        config.write_text(config.read_text().replace('"kv_cache_scheme": 0',
                                                     f'"kv_cache_scheme": {value}'))  # fmt: skip
        assert "kv_cache_scheme" in config.read_text()
    assert check(tmp_path).code in (0, 1)
