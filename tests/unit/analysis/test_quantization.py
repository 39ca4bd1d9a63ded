"""Which modules a config leaves out, against the standard library's shell patterns."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdiff.analysis.quantization import fused_groups, is_excluded
from ckptdiff.records.checkpoint import QuantConfig


def config(*exclude: str) -> QuantConfig:
    return QuantConfig("config.json", "modelopt", "modelopt 0.47.0", "FP8", exclude=exclude)


@pytest.mark.parametrize(
    ("entry", "module", "excluded"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.10.mlp.up_proj", False),
        ("model.layers.1*", "model.layers.10.mlp.up_proj", True),
        ("model.layers.1.*", "model.layers.10.mlp.up_proj", False),
        ("*", "anything", True),
        ("visual*", "visual.blocks.0.attn.qkv", True),
        ("model.visual*", "visual.blocks.0.attn.qkv", True),
        ("model.language_model.layers.0*", "model.layers.0.mlp.up_proj", True),
        ("*.mlp.*_proj", "model.layers.0.mlp.up_proj", True),
        ("model.layers.?.mlp*", "model.layers.1.mlp.up_proj", True),
        ("model.layers.[0-2].mlp*", "model.layers.3.mlp.up_proj", False),
        ("", "model.layers.3", False),
    ],
)
def test_entries(entry: str, module: str, excluded: bool) -> None:
    assert is_excluded(config(entry), module) is excluded


NAMES = st.from_regex(r"[ab](\.[ab0]){0,3}", fullmatch=True)
PATTERNS = st.from_regex(r"[ab*?](\.?[ab0*?]){0,3}", fullmatch=True)


@given(st.lists(PATTERNS, max_size=4), NAMES)
def test_shell_patterns(patterns: list[str], name: str) -> None:
    """Names without the prefixes that are spelled differently, so that nothing else matches."""
    plain = any(
        fnmatchcase(name, pattern)
        or (not set("*?") & set(pattern) and f"{name}.".startswith(f"{pattern}."))
        for pattern in patterns
    )
    assert is_excluded(config(*patterns), name) is plain


def test_groups_need_two_members_of_one_parent() -> None:
    modules = ["a.q_proj", "a.k_proj", "b.q_proj", "a.up_proj", "a.gate_proj", "a.o_proj"]
    assert set(fused_groups(modules)) == {("a.k_proj", "a.q_proj"), ("a.gate_proj", "a.up_proj")}
