"""Names, order and shares of composed schemes, against the libraries that write them."""

from __future__ import annotations

import json
import math
import random
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ckptdiff.analysis.composing.export_configs import exclude_modules
from ckptdiff.analysis.composing.partition import eligible_ranking, partition_of, share_of
from ckptdiff.analysis.composing.sharding import index_document, shards_of
from ckptdiff.formats.manifests import parse_baseline, parse_coverage
from ckptdiff.formats.names import scheme_name
from ckptdiff.records.checkpoint import Shard
from ckptdiff.records.composition import Piece, Stored
from ckptdiff.records.coverage import Module

NUMPY = {"F32": np.float32, "U8": np.uint8, "I8": np.int8, "F16": np.float16, "I64": np.int64}


def piece(name: str, dtype: str, shape: tuple[int, ...], width: int) -> Piece:
    size = math.prod(shape) * width
    return Piece(name, dtype, shape, size, Stored(Shard("x", "x"), name))


def test_headers_are_those_of_the_library(tmp_path: Path) -> None:
    draw = random.Random(0)
    arrays = {
        f"layers.{draw.randrange(100)}.{leaf}": np.zeros(shape, kind)
        for kind in NUMPY.values()
        for leaf in ("weight", "weight_scale", "é")
        for shape in ((), (3,), (2, 3))
    }
    names = {np.dtype(kind): name for name, kind in NUMPY.items()}
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, metadata={"format": "pt"})
    pieces = [
        piece(name, names[array.dtype], array.shape, array.itemsize)
        for name, array in arrays.items()
    ]
    (shard,) = shards_of(pieces, lambda piece: piece.name)
    assert shard.header == path.read_bytes()[: len(shard.header)]
    assert shard.nbytes == path.stat().st_size and shard.name == path.name


def test_a_large_checkpoint_is_cut_and_indexed() -> None:
    pieces = [piece(f"m.{n}.weight", "I8", (n,), 1) for n in (40, 70, 30, 120, 10)]
    pieces.append(piece("m.10.weight_scale", "F32", (), 4))
    shards = shards_of(pieces, lambda piece: [p.name for p in pieces].index(piece.name), 100)
    found = {shard.name: [p.name for p in shard.pieces] for shard in shards}
    assert found == {
        "model-00001-of-00004.safetensors": ["m.40.weight"],
        "model-00002-of-00004.safetensors": ["m.30.weight", "m.70.weight"],
        "model-00003-of-00004.safetensors": ["m.120.weight"],
        "model-00004-of-00004.safetensors": ["m.10.weight_scale", "m.10.weight"],
    }
    index = json.loads(index_document(shards))
    assert index["metadata"] == {"total_parameters": 270, "total_size": 274}
    assert index["weight_map"]["m.120.weight"] == "model-00003-of-00004.safetensors"
    assert index_document(shards).endswith(b"}\n")


@pytest.mark.parametrize(
    ("unquantized", "quantized", "patterns"),
    [
        (["a.b.c"], [], ["a*"]),
        (["a.b.c"], ["a.d"], ["a.b*"]),
        (["a.b.c"], ["a.bb"], ["a.b.*"]),
        (["a.b.c"], ["a.b.d"], ["a.b.c"]),
        (["a.b.c", "a.b.d"], ["a.bb"], ["a.b.*"]),
        (["a.b"], ["a.bb"], ["a.b"]),
        (["lm_head"], [], ["lm_head"]),
        (["layers.1.q", "layers.1.k"], ["layers.10.q"], ["layers.1.*"]),
        (
            ["layers.1.q", "layers.10.k"],
            ["layers.10.q", "layers.2.q"],
            ["layers.1.*", "layers.10.k"],
        ),
    ],
)
def test_patterns_are_short_and_match_nothing_quantized(
    unquantized: list[str], quantized: list[str], patterns: list[str]
) -> None:
    assert exclude_modules(unquantized, quantized) == patterns


@pytest.mark.parametrize(
    ("percent", "count", "expected"),
    [("10", 275, 28), ("50", 31, 16), ("100", 31, 31), ("1", 5, 1), ("7", 100, 7), ("0.5", 200, 1),
     ("55", 100, 55), ("33.4", 1000, 334)],
)  # fmt: skip
def test_a_share_is_rounded_up_and_never_empty(percent: str, count: int, expected: int) -> None:
    # In floats, 0.07 * 100 is more than 7 and 0.55 * 100 more than 55.
    assert share_of(["recipe"] * count, Decimal(percent)) == expected


@pytest.mark.parametrize(
    ("baseline", "name"),
    [
        ("fp8_autoquant_all_layers_fp8_coco2017", "fp8_autoquant_all_layers_top10_coco2017"),
        ("int8_autoquant_int8", "int8_autoquant_top10"),
        ("nvfp4-autoquant-w4a16-text", "nvfp4-autoquant-top10-text"),
        ("fp8", "top10"),
        ("my_baseline", "my_baseline_top10"),
        ("INT4_AWQ_x", "INT4_top10_x"),
        ("fp8_autoquant_all_layers_top100_text", "fp8_autoquant_all_layers_top10_text"),
        ("fp8_top33.3_text", "fp8_top10_text"),
    ],
)
def test_schemes_are_named_after_their_baseline(baseline: str, name: str) -> None:
    assert scheme_name(baseline, "10") == name


def module(key: str, packable: bool = True) -> Module:
    return Module(key, f"model.{key}", f"model.{key}.weight", "BF16", "s", 4, 16, False, packable)


def test_recipes_become_modules_of_base() -> None:
    keys = [f"layers.0.self_attn.{leaf}_proj" for leaf in "qkvo"]
    modules = {key: module(key) for key in keys}
    modules["visual.patch_embed.proj"] = module("visual.patch_embed.proj", packable=False)
    selected = ["model.language_model.layers.0.self_attn.q_proj.quant_recipe",
                "visual.patch_embed.proj.quant_recipe", "lm_head.quant_recipe", "x.quant_recipe",
                "layers.0.self_attn.o_proj.quant_recipe"]  # fmt: skip
    manifest = parse_coverage({"selected_layers": selected, "dropped_layers": []}, "m")
    never = {"formats": ["NONE(effective-bits: 16.0)"]}
    recipes = {"layers.0.self_attn.o_proj.quant_recipe": never}
    baseline = parse_baseline(
        {"layer_sensitivity": recipes, "sensitivity_ranking": [*recipes, "y.quant_recipe"]}, "b"
    )
    found = partition_of(manifest, baseline, modules)
    assert found.selected == frozenset(keys[:3])
    assert found.unpackable == {"visual.patch_embed.proj"}
    assert found.unknown == ("x.quant_recipe",)
    assert eligible_ranking(baseline) == ("y.quant_recipe",)
