"""Which tensors are compared with which."""

from __future__ import annotations

from pathlib import Path

import pytest
from build import Spec, write_weights

from ckptdiff.analysis.differing.alignment import align, kind_of, layer_of
from ckptdiff.analysis.differing.pairs import Pair
from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.jobs.reading import read_one

Found = dict[str, tuple[str | None, str | None]]


def pairs(folder: Path, a: dict[str, Spec], b: dict[str, Spec]) -> dict[str, Pair]:
    sides = []
    for name, tensors in (("a", a), ("b", b)):
        path = folder / name
        path.mkdir()
        write_weights(path, tensors)
        sides.append(scheme_evidence(read_one(path), None))
    return {pair.key: pair for pair in align(*sides)}


def spelled(found: dict[str, Pair]) -> Found:
    return {
        key: (pair.a and pair.a.spelled, pair.b and pair.b.spelled) for key, pair in found.items()
    }


def bf16(*shape: int) -> Spec:
    return Spec("BF16", shape, "x")


def fp8(name: str, *shape: int) -> dict[str, Spec]:
    return {
        f"{name}.weight": Spec("F8_E4M3", shape, "w"),
        f"{name}.weight_scale": Spec("F32", (), "s"),
        f"{name}.input_scale": Spec("F32", (), "i"),
    }


def test_spellings_of_one_name(tmp_path: Path) -> None:
    found = pairs(
        tmp_path,
        {"model.layers.0.norm.weight": bf16(4), "visual.x.weight": bf16(4)},
        {"model.language_model.layers.0.norm.weight": bf16(4), "model.visual.x.weight": bf16(4)},
    )
    assert all(pair.a and pair.b for pair in found.values()) and len(found) == 2
    assert found["layers.0.norm.weight"].name == "model.layers.0.norm.weight"


def test_full_names_where_short_ones_collide(tmp_path: Path) -> None:
    found = pairs(
        tmp_path,
        {"model.x.weight": bf16(4), "x.weight": bf16(4)},
        {"model.x.weight": bf16(4), "y.weight": bf16(4)},
    )
    assert spelled(found) == {
        "model.x.weight": ("model.x.weight", "model.x.weight"),
        "x.weight": ("x.weight", None),
        "y.weight": (None, "y.weight"),
    }


def test_scales_that_one_side_has_are_part_of_its_weight(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    found = pairs(tmp_path, {f"{name}.weight": bf16(8, 16)}, fp8(name, 8, 16))
    assert list(found) == ["layers.0.mlp.up_proj.weight"]
    (pair,) = found.values()
    assert pair.b is not None and (pair.b.layout, pair.b.shape) == ("fp8", (8, 16))


def test_scales_of_the_same_format_have_pairs(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    found = pairs(tmp_path, fp8(name, 8, 16), fp8(name, 8, 16))
    assert [pair.is_scale for pair in found.values()] == [False, True, True]
    assert all(pair.a and pair.b for pair in found.values())


def test_scales_of_other_formats_have_none(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    other = {
        f"{name}.weight": Spec("U8", (8, 16), "w"),
        f"{name}.weight_scale": Spec("F8_E4M3", (8, 2), "s"),
        f"{name}.weight_scale_2": Spec("F32", (), "t"),
    }
    found = pairs(tmp_path, fp8(name, 8, 32), other)
    assert list(found) == ["layers.0.mlp.up_proj.weight"]
    (pair,) = found.values()
    assert pair.a and pair.b and pair.a.shape == pair.b.shape == (8, 32)


def test_a_stray_scale_is_not_hidden(tmp_path: Path) -> None:
    """A scale beside a plain weight belongs to nothing: it is listed."""
    name = "model.layers.0.mlp.up_proj"
    plain = {f"{name}.weight": bf16(8, 16), f"{name}.weight_scale": Spec("F32", (), "s")}
    found = pairs(tmp_path, plain, fp8(name, 8, 16))
    assert spelled(found)["layers.0.mlp.up_proj.weight_scale"] == (f"{name}.weight_scale", None)


def test_scales_of_the_cache_are_compared_whatever_the_weight_is(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.k_proj"
    a = {f"{name}.weight": bf16(8, 16), f"{name}.k_scale": Spec("F32", (), "s")}
    b = {**fp8(name, 8, 16), f"{name}.k_scale": Spec("F32", (), "s")}
    found = pairs(tmp_path, a, b)
    assert found["layers.0.self_attn.k_proj.k_scale"].is_scale
    assert len(found) == 2


def test_a_lost_scale_is_an_obstacle(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    broken = fp8(name, 8, 16)
    del broken[f"{name}.weight_scale"]
    found = pairs(tmp_path, {f"{name}.weight": bf16(8, 16)}, broken)
    pair = found["layers.0.mlp.up_proj.weight"]
    assert pair.b is not None and pair.b.obstacle == "there is no weight_scale"


EXPERTS = "model.layers.0.mlp.experts"


def experts(inner: int, hidden: int, count: int = 2, names: str = "gate_proj up_proj down_proj"):  # type: ignore[no-untyped-def]
    gate, up, down = names.split()
    found = {}
    for number in range(count):
        found[f"{EXPERTS}.{number}.{gate}.weight"] = bf16(inner, hidden)
        found[f"{EXPERTS}.{number}.{up}.weight"] = bf16(inner, hidden)
        found[f"{EXPERTS}.{number}.{down}.weight"] = bf16(hidden, inner)
    return found


@pytest.mark.parametrize("names", ["gate_proj up_proj down_proj", "w1 w3 w2"])
@pytest.mark.parametrize("fused_first", [True, False])
def test_experts_in_one_tensor(tmp_path: Path, names: str, fused_first: bool) -> None:
    fused = {f"{EXPERTS}.gate_up_proj": bf16(2, 6, 4), f"{EXPERTS}.down_proj": bf16(2, 4, 3)}
    sides = (fused, experts(3, 4, names=names))
    found = pairs(tmp_path, *(sides if fused_first else reversed(sides)))
    assert len(found) == 6 and all(pair.a and pair.b for pair in found.values())
    gate, up, down = names.split()
    place = 0 if fused_first else 1
    shown = {key: names[place] for key, names in spelled(found).items()}
    assert shown[f"layers.0.mlp.experts.1.{gate}.weight"] == f"{EXPERTS}.gate_up_proj[1, 0:3]"
    assert shown[f"layers.0.mlp.experts.1.{up}.weight"] == f"{EXPERTS}.gate_up_proj[1, 3:6]"
    assert shown[f"layers.0.mlp.experts.0.{down}.weight"] == f"{EXPERTS}.down_proj[0, 0:4]"
    assert all(pair.name.startswith(f"{EXPERTS}.") for pair in found.values())


def test_experts_that_lie_transposed(tmp_path: Path) -> None:
    fused = {f"{EXPERTS}.gate_up_proj": bf16(2, 4, 6), f"{EXPERTS}.down_proj": bf16(2, 3, 4)}
    found = spelled(pairs(tmp_path, fused, experts(3, 4)))
    assert found["layers.0.mlp.experts.1.up_proj.weight"][0] == f"{EXPERTS}.gate_up_proj[1, :, 3:6]"


def test_a_square_matrix_lies_as_its_neighbour_does(tmp_path: Path) -> None:
    fused = {f"{EXPERTS}.gate_up_proj": bf16(2, 4, 8), f"{EXPERTS}.down_proj": bf16(2, 4, 4)}
    found = pairs(tmp_path, fused, experts(4, 4))
    down = found["layers.0.mlp.experts.0.down_proj.weight"]
    assert down.a is not None and down.a.part is not None and down.a.part.transposed


def test_what_one_side_has_both_ways_hides_nothing(tmp_path: Path) -> None:
    """Which of the two a loader takes is not known."""
    fused = {f"{EXPERTS}.gate_up_proj": bf16(2, 6, 4), f"{EXPERTS}.down_proj": bf16(2, 4, 3)}
    twice = fused | {f"{EXPERTS}.1.up_proj.weight": bf16(3, 4)}
    found = spelled(pairs(tmp_path, twice, experts(3, 4)))
    key = "layers.0.mlp.experts.1.up_proj.weight"
    assert found[key] == (f"{EXPERTS}.1.up_proj.weight",) * 2
    assert found["layers.0.mlp.experts.gate_up_proj"] == (f"{EXPERTS}.gate_up_proj", None)


def test_a_header_cannot_ask_for_a_million_experts(tmp_path: Path) -> None:
    fused = {f"{EXPERTS}.gate_up_proj": bf16(1_000_000, 2, 1)}
    found = spelled(pairs(tmp_path, fused, experts(1, 1, count=4)))
    assert found["layers.0.mlp.experts.gate_up_proj"] == (f"{EXPERTS}.gate_up_proj", None)
    assert len(found) == 1 + 12


def test_experts_of_other_sizes_are_not_matched(tmp_path: Path) -> None:
    fused = {f"{EXPERTS}.gate_up_proj": bf16(2, 10, 4)}
    found = spelled(pairs(tmp_path, fused, experts(3, 4, count=1)))
    assert found["layers.0.mlp.experts.gate_up_proj"] == (f"{EXPERTS}.gate_up_proj", None)
    assert found["layers.0.mlp.experts.0.up_proj.weight"][0] is None


def test_experts_that_only_one_side_has(tmp_path: Path) -> None:
    fused = {f"{EXPERTS}.gate_up_proj": bf16(3, 6, 4)}
    found = pairs(tmp_path, fused, experts(3, 4, count=2))
    assert found["layers.0.mlp.experts.2.up_proj.weight"].b is None
    assert found["layers.0.mlp.experts.1.down_proj.weight"].a is None


@pytest.mark.parametrize(
    ("key", "layer", "kind"),
    [
        ("layers.12.self_attn.q_proj.weight", "layers.12", "q_proj"),
        ("visual.blocks.0.attn.qkv.bias", "visual.blocks.0", "qkv"),
        ("visual.merger.mlp.2.weight", None, "mlp.2"),
        ("layers.1.mlp.experts.7.up_proj.weight", "layers.1", "experts.up_proj"),
        ("layers.1.mlp.experts.gate_up_proj", "layers.1", "experts"),
        ("embed_tokens.weight", None, "embed_tokens"),
        ("x", None, "x"),
    ],
)
def test_layer_and_kind(key: str, layer: str | None, kind: str) -> None:
    assert (layer_of(key), kind_of(key)) == (layer, kind)
