"""The name rule and recipe groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdiff.formats.names import (
    RecipeGroups,
    declared_share,
    keys_of,
    module_key,
    norms_add_one,
    norms_before,
    weight_module,
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"),
        ("model.language_model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"),
        ("language_model.layers.0.mlp.up_proj.quant_recipe", "layers.0.mlp.up_proj"),
        ("language_model.model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"),
        ("model.visual.blocks.3.attn.qkv", "visual.blocks.3.attn.qkv"),
        ("visual.blocks.3.attn.qkv.quant_recipe", "visual.blocks.3.attn.qkv"),
        ("lm_head", "lm_head"),
        ("model.embed_tokens", "embed_tokens"),
        ("remodel.layers.0", "remodel.layers.0"),
    ],
)
def test_spellings_of_one_module_have_one_key(name: str, key: str) -> None:
    assert module_key(name) == key


def test_full_names_when_keys_would_collide() -> None:
    names = ["model.layers.0.x", "layers.0.x", "norm"]
    assert keys_of(names) == {name: name for name in names}


@given(st.lists(st.from_regex(r"(model\.)?(language_model\.)?[a-c](\.[a-c])?", fullmatch=True)))
def test_keys_are_injective(names: list[str]) -> None:
    keys = keys_of(names)
    assert set(keys) == set(names)
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("fp8_autoquant_all_layers_top10_coco2017", 10),
        ("top100", 100),
        ("top5_v2", 5),
        ("sweep/top10/top30", 30),
        ("TOP50", 50),
        ("top0", None),
        ("top101", None),
        ("laptop50", None),
        ("top10x", None),
        ("top-10", None),
        ("stop10", None),
        ("", None),
    ],
)
def test_share_in_a_name(name: str, share: int | None) -> None:
    assert declared_share(name) == share


@pytest.mark.parametrize(
    ("tensor", "module"),
    [
        ("a.b.weight", "a.b"),
        ("a.b.weight_packed", "a.b"),
        ("a.b.qweight", "a.b"),
        ("a.b.weight_scale", None),
        ("a.b.bias", None),
        ("weight", None),
    ],
)
def test_module_of_a_weight(tensor: str, module: str | None) -> None:
    assert weight_module(tensor) == module


MODULES = frozenset(
    f"layers.0.{leaf}"
    for leaf in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        "mlp.experts.0.up_proj", "mlp.experts.0.down_proj", "mlp.experts.1.up_proj",
        "mlp.experts.10.up_proj", "linear_attn.in_proj_qkv", "linear_attn.in_proj_z",
    )
) | {"layers.1.mlp.experts.0.up_proj", "visual.blocks.0.attn.qkv"}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "members"),
    [
        ("layers.0.self_attn.q_proj", {"q_proj", "k_proj", "v_proj"}),
        ("layers.0.self_attn.o_proj", {"o_proj"}),
        ("layers.0.mlp.gate_proj", {"gate_proj", "up_proj"}),
        ("layers.0.mlp.down_proj", {"down_proj"}),
        ("layers.0.linear_attn.in_proj_qkv", {"in_proj_qkv", "in_proj_z"}),
        ("visual.blocks.0.attn.qkv", {"qkv"}),
        ("lm_head", set()),
        ("layers.9.self_attn.q_proj", set()),
    ],
)
def test_groups(recipe: str, members: set[str]) -> None:
    found = RecipeGroups.of(MODULES, [recipe]).expand(recipe)
    assert {name.rpartition(".")[2] for name in found} == members
    assert {name.rpartition(".")[0] for name in found} <= {recipe.rpartition(".")[0]}


@pytest.mark.parametrize("leader", ["layers.0.mlp.experts", "layers.0.mlp.experts.0.up_proj"])
def test_a_leader_stands_for_all_experts_of_its_layer(leader: str) -> None:
    found = RecipeGroups.of(MODULES, [leader]).expand(leader)
    assert set(found) == {m for m in MODULES if m.startswith("layers.0.mlp.experts.")}


def test_a_member_that_is_ranked_itself_is_not_in_the_group() -> None:
    groups = RecipeGroups.of(MODULES, ["layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj"])
    assert set(groups.expand("layers.0.self_attn.q_proj")) == {
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.v_proj",
    }
    assert groups.expand("layers.0.self_attn.k_proj") == ("layers.0.self_attn.k_proj",)


@pytest.mark.parametrize(
    ("linear", "norms"),
    [
        ("layers.3.self_attn.v_proj", ("layers.3.input_layernorm",)),
        *(
            (
                f"layers.3.mlp.{leaf}",
                (
                    "layers.3.pre_feedforward_layernorm",
                    "layers.3.post_attention_layernorm",
                    "layers.3.input_layernorm",
                ),
            )
            for leaf in ("up_proj", "gate_proj", "fc1", "c_fc")
        ),
        ("layers.3.self_attn.o_proj", ()),
        ("layers.3.mlp.experts.0.w1", None),
    ],
)
def test_norms_in_front_of_a_linear(linear: str, norms: tuple[str, ...] | None) -> None:
    assert norms_before(linear) == norms


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("GemmaForCausalLM", True),
        ("Gemma2ForCausalLM", True),
        ("Gemma3ForConditionalGeneration", True),
        ("PaliGemmaForConditionalGeneration", True),
        ("Gemma3nForCausalLM", False),
        ("Gemma4ForCausalLM", False),
        ("NemotronForCausalLM", True),
        ("NemotronHForCausalLM", False),
        ("Qwen3NextForCausalLM", True),
        ("Qwen3ForCausalLM", False),
        ("LlamaForCausalLM", False),
    ],
)
def test_norms_that_multiply_by_one_more(name: str, more: bool) -> None:
    """As their classes in transformers do."""
    assert norms_add_one([name]) is more
