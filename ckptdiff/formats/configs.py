"""config.json and hf_quant_config.json: claims about model and quantization."""

from __future__ import annotations

from ckptdiff.formats.documents import JsonObject, Misfit, int_of, object_of, text_of, texts_of
from ckptdiff.records.checkpoint import ModelConfig, QuantConfig

CONFIG_NAME = "config.json"
QUANT_CONFIG_NAME = "hf_quant_config.json"

# What logits depend on and no tensor's shape shows. transformers 5 moves some of them elsewhere
# in the file (rope_theta into rope_parameters), which is why they go by their last name.
_SETTINGS = frozenset(
    {
        "attention_multiplier",
        "attn_logit_softcapping",
        "embedding_multiplier",
        "final_logit_softcapping",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "logits_scaling",
        "norm_eps",
        "norm_topk_prob",
        "num_attention_heads",
        "num_experts_per_tok",
        "num_key_value_heads",
        "partial_rotary_factor",
        "query_pre_attn_scalar",
        "residual_multiplier",
        "rms_norm_eps",
        "rope_theta",
        "routed_scaling_factor",
    }
)
# Parts of a model that have settings of their own.
_PARTS = ("vision", "visual", "audio", "speech")
# Vision-language models keep their language part's sizes one level down.
_TEXT_PARTS = ("text_config", "llm_config", "language_config")


def parse_model_config(document: JsonObject) -> ModelConfig:
    """The identity of the model in config.json. Raises `Misfit` on wrong types."""
    text = next((object_of(document, part) for part in _TEXT_PARTS if document.get(part)), {})

    def size(key: str) -> int | None:
        found = int_of(text, key)
        return int_of(document, key) if found is None else found

    tied = document.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    quantization = object_of(document, "quantization_config")
    return ModelConfig(
        architectures=texts_of(document, "architectures"),
        hidden_size=size("hidden_size"),
        num_layers=size("num_hidden_layers"),
        tied_embeddings=tied is True,
        quantization=_from_config_json(quantization) if quantization else None,
        settings=_settings(document),
    )


def _settings(document: JsonObject) -> dict[str, frozenset[float | str]]:
    found: dict[str, set[float | str]] = {}
    left: list[tuple[JsonObject, str]] = [(document, "")]
    while left:
        settings, part = left.pop()
        for name, value in settings.items():
            if isinstance(value, dict):
                left.append((value, next((f"{p}." for p in _PARTS if p in name), part)))
            elif name in _SETTINGS and isinstance(value, int | float | str):
                found.setdefault(f"{part}{name}", set()).add(value)
    return {name: frozenset(values) for name, values in found.items()}


def parse_quant_config(document: JsonObject) -> QuantConfig:
    """hf_quant_config.json as ModelOpt writes it. Raises `Misfit` on wrong types."""
    if document.get("quantization") is None:
        raise Misfit('has no "quantization"')
    quantization = object_of(document, "quantization")
    return QuantConfig(
        source=QUANT_CONFIG_NAME,
        method="modelopt",
        producer=_producer(document),
        algorithm=text_of(quantization, "quant_algo"),
        kv_cache_algorithm=text_of(quantization, "kv_cache_quant_algo"),
        group_size=int_of(quantization, "group_size"),
        exclude=texts_of(quantization, "exclude_modules"),
        layers=_layers(quantization),
        group_sizes=_group_sizes(quantization),
    )


def _from_config_json(document: JsonObject) -> QuantConfig:
    groups = object_of(document, "config_groups")
    kv_cache = document.get("kv_cache_scheme")
    return QuantConfig(
        source=CONFIG_NAME,
        method=text_of(document, "quant_method") or "",
        producer=_producer(document),
        algorithm=text_of(document, "quant_algo"),
        kv_cache_algorithm=_kv_cache_algorithm(kv_cache),
        group_size=next((size for group in groups.values() if (size := _group_size(group))), None),
        exclude=texts_of(document, "ignore") or texts_of(document, "exclude_modules"),
        layers=_layers(document),
        group_sizes=_group_sizes(document),
    )


def _producer(document: JsonObject) -> str:
    producer = object_of(document, "producer")
    return " ".join(part for key in ("name", "version") if (part := text_of(producer, key)))


def _layers(document: JsonObject) -> dict[str, str]:
    layers = object_of(document, "quantized_layers")
    return {name: text_of(object_of(layers, name), "quant_algo") or "" for name in layers}


def _group_sizes(document: JsonObject) -> dict[str, int]:
    layers = object_of(document, "quantized_layers")
    sizes = {name: int_of(object_of(layers, name), "group_size") for name in layers}
    return {name: size for name, size in sizes.items() if size is not None}


def _group_size(group: object) -> int | None:
    weights = group.get("weights") if isinstance(group, dict) else None
    return int_of(weights, "group_size") if isinstance(weights, dict) else None


def _kv_cache_algorithm(scheme: object) -> str | None:
    if not isinstance(scheme, dict):
        return None
    # As text, because a stranger's scheme may hold values that cannot be keys.
    spelled = f"{scheme.get('type')}{scheme.get('num_bits')}"
    return {"float8": "FP8", "int8": "INT8", "float4": "NVFP4"}.get(spelled)
