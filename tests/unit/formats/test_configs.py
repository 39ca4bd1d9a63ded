"""config.json and hf_quant_config.json, as ModelOpt and others write them."""

from __future__ import annotations

from typing import Any

import pytest

from ckptdiff.formats.configs import parse_model_config, parse_quant_config
from ckptdiff.formats.documents import Misfit

PRODUCER = {"name": "modelopt", "version": "0.47.0"}


def test_identity_of_a_language_model() -> None:
    found = parse_model_config(
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "tie_word_embeddings": True,
        }
    )
    assert (found.architectures, found.hidden_size, found.num_layers) == (
        ("LlamaForCausalLM",),
        64,
        3,
    )
    assert found.tied_embeddings
    assert found.quantization is None


def test_identity_of_a_vision_language_model_is_its_language_part() -> None:
    found = parse_model_config(
        {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "hidden_size": 1,
            "text_config": {"hidden_size": 64, "num_hidden_layers": 3, "tie_word_embeddings": True},
        }
    )
    assert (found.hidden_size, found.num_layers, found.tied_embeddings) == (64, 3, True)


def test_mixed_precision() -> None:
    found = parse_quant_config(
        {
            "producer": PRODUCER,
            "quantization": {
                "quant_algo": "MIXED_PRECISION",
                "kv_cache_quant_algo": None,
                "quantized_layers": {
                    "model.layers.0.mlp.up_proj": {"quant_algo": "FP8"},
                    "model.layers.1.mlp.up_proj": {"quant_algo": "NVFP4", "group_size": 16},
                },
            },
        }
    )
    assert found.algorithm == "MIXED_PRECISION"
    assert found.layers == {
        "model.layers.0.mlp.up_proj": "FP8",
        "model.layers.1.mlp.up_proj": "NVFP4",
    }
    assert found.producer == "modelopt 0.47.0"


def test_group_size_exclusions_and_kv_cache() -> None:
    found = parse_quant_config(
        {
            "producer": PRODUCER,
            "quantization": {
                "quant_algo": "NVFP4",
                "kv_cache_quant_algo": "FP8",
                "group_size": 16,
                "exclude_modules": ["lm_head", "model.layers.0*"],
            },
        }
    )
    assert (found.group_size, found.kv_cache_algorithm) == (16, "FP8")
    assert found.exclude == ("lm_head", "model.layers.0*")


def test_quantization_config_inside_config_json() -> None:
    found = parse_model_config(
        {
            "architectures": ["LlamaForCausalLM"],
            "quantization_config": {
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "ignore": ["lm_head"],
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 16}}},
                "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False},
                "producer": PRODUCER,
            },
        }
    ).quantization
    assert found is not None
    assert (found.method, found.algorithm, found.group_size) == ("modelopt", "NVFP4", 16)
    assert (found.exclude, found.kv_cache_algorithm) == (("lm_head",), "FP8")


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": "LlamaForCausalLM"},
        {"hidden_size": "64"},
        {"hidden_size": 2**70},
        {"text_config": [1]},
        {"quantization_config": []},
        {"quantization_config": {"quant_method": 5}},
        {"quantization_config": {"quant_method": "x", "ignore": "lm_head"}},
        {"quantization_config": {"quant_method": "x", "quantized_layers": {"a": "FP8"}}},
    ],
)
def test_a_field_of_the_wrong_type_is_a_misfit(change: dict[str, Any]) -> None:
    if change.get("quantization_config") == []:
        change["quantization_config"] = [1]
    with pytest.raises(Misfit):
        parse_model_config({"architectures": ["A"]} | change)


@pytest.mark.parametrize("scheme", [5, [], {"num_bits": [8], "type": {}}, {}])
def test_a_strange_kv_cache_scheme_is_none(scheme: Any) -> None:
    found = parse_model_config({"quantization_config": {"kv_cache_scheme": scheme}}).quantization
    assert found is not None and found.kv_cache_algorithm is None


def test_hf_quant_config_without_quantization_is_a_misfit() -> None:
    with pytest.raises(Misfit):
        parse_quant_config({"producer": PRODUCER})
