"""CK6, against the base: one tensor of a real export, or of its base, that is not as it was."""

from __future__ import annotations

import json
import math

import pytest
from build import Spec, write_json
from command import run
from mutate import (
    Mutant,
    as_float32,
    flip,
    graft,
    of_module,
    read_tensors,
    reshape,
    tensors,
    weights_of,
)

from ckptdiff.records.finding import Location

SHARD = "model.safetensors"
QUANTIZED = "model.layers.1.self_attn.o_proj"
UNQUANTIZED = "model.layers.5.mlp.down_proj"
BIAS = "model.layers.3.self_attn.q_proj.bias"  # of a quantized module
NORM = "model.layers.2.input_layernorm.weight"
PLAIN = [NORM, BIAS, f"{UNQUANTIZED}.weight", "model.embed_tokens.weight",
         "visual.patch_embed.proj.weight"]  # fmt: skip


def place(*names: str) -> list[Location]:
    return [Location(tensor=name, shard=SHARD) for name in names]


def test_all_ck6_clean(mutant: Mutant) -> None:
    assert mutant.new() == []


@pytest.mark.parametrize("name", PLAIN)
def test_ck601_fires(mutant: Mutant, name: str) -> None:
    """One bit, the lowest of the last element."""
    with tensors(mutant[30]) as found:
        found[name] = flip(found[name], element=math.prod(found[name].shape) - 1)
    mutant.expect("CK601", mutant[30], place(name))


def test_ck601_fires_on_the_base(mutant: Mutant) -> None:
    """One bit of the base is a difference in every scheme that has not quantized the weight."""
    with tensors(mutant.base) as found:
        found[f"{QUANTIZED}.weight"] = flip(found[f"{QUANTIZED}.weight"])
    (unquantized,) = (path for path in mutant.root.iterdir() if "_top" not in path.name)
    mutant.expect("CK601", [unquantized, mutant[10]], place(f"{QUANTIZED}.weight"))


def test_ck601_fires_in_another_dtype(mutant: Mutant) -> None:
    """Float32 under a BF16 base is an info only while the values are the same."""
    with tensors(mutant[30]) as found:
        found[NORM] = flip(as_float32(found[NORM]))
    mutant.expect("CK601", mutant[30], place(NORM))


@pytest.mark.parametrize("name", PLAIN[:2])
def test_ck602_fires(mutant: Mutant, name: str) -> None:
    with tensors(mutant[30]) as found:
        del found[name]
    mutant.expect("CK602", mutant[30], place(name))


def test_ck602_fires_for_a_quantized_module(mutant: Mutant) -> None:
    """q is gone, scales and all; the recipe still names k and v."""
    module = "model.layers.3.self_attn.q_proj"
    with tensors(mutant[30]) as found:
        for name in of_module(found, module):
            del found[name]
    mutant.expect("CK602", mutant[30], place(f"{module}.weight"))


def test_a_lost_weight_is_told_without_a_base_too(mutant: Mutant) -> None:
    """By what is left: a scale without a weight, a recipe without a module."""
    with tensors(mutant[30]) as found:
        del found[f"{QUANTIZED}.weight"]
    with tensors(mutant[50]) as found:
        del found[f"{UNQUANTIZED}.weight"], found["visual.patch_embed.proj.weight"]
    both = (mutant[30].name, mutant[50].name)
    assert [(f.code, *f.schemes) for f in mutant.new()] == [("CK602", id) for id in both]
    assert [(f.code, *f.schemes) for f in mutant.new(with_base=False)] == [
        ("CK202", both[0]),
        ("CK306", both[1]),
    ]


@pytest.mark.parametrize(
    "name", ["model.layers.6.input_layernorm.weight", "x", "visual.extra.weight"]
)
def test_ck603_fires(mutant: Mutant, name: str) -> None:
    with tensors(mutant[30]) as found:
        found[name] = found[NORM]
    mutant.expect("CK603", mutant[30], place(name))


def test_ck603_fires_for_a_quantized_module(mutant: Mutant) -> None:
    """The baseline has no manifest of a subset that could drop it."""
    (scheme,) = (path for path in mutant.root.iterdir() if "_top" not in path.name)
    with tensors(scheme) as found:
        for name, spec in of_module(found, "model.layers.1.mlp.down_proj").items():
            found[name.replace(".1.", ".6.")] = spec
    mutant.expect("CK603", scheme, place("model.layers.6.mlp.down_proj.weight"))


def test_ck302_is_what_a_manifest_says_of_a_quantized_module_too_many(mutant: Mutant) -> None:
    with tensors(mutant[30]) as found:
        for name, spec in of_module(found, QUANTIZED).items():
            found[name.replace(".1.", ".6.")] = spec
    mutant.expect("CK302", mutant[30], weights_of(QUANTIZED.replace(".1.", ".6.")))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (NORM, (48,)),
        (BIAS, (192,)),
        (f"{UNQUANTIZED}.weight", (176, 96)),
        (f"{QUANTIZED}.weight", (96, 48)),
        (f"{QUANTIZED}.weight", (48, 192)),
        ("model.layers.1.mlp.gate_proj.weight", (96, 176)),
    ],
)
def test_ck604_fires(mutant: Mutant, name: str, shape: tuple[int, ...]) -> None:
    with tensors(mutant[30]) as found:
        found[name] = reshape(found[name], *shape)
    finding = mutant.expect("CK604", mutant[30], place(name))
    assert str(list(shape)) in (finding.actual or "")


def test_ck605_fires(mutant: Mutant) -> None:
    with tensors(mutant[30]) as found:
        found[NORM] = as_float32(found[NORM])
    mutant.expect("CK605", mutant[30], place(NORM))


def test_ck605_fires_on_a_float32_base(mutant: Mutant) -> None:
    """For every tensor that is not quantized, in every scheme, and nothing is worse."""
    with tensors(mutant.base) as found:
        found.update({name: as_float32(spec) for name, spec in found.items()})
    findings = mutant.new()
    assert {f.schemes for f in findings} == {(path.name,) for path in mutant.root.iterdir()}
    for finding in findings:
        scheme = read_tensors(mutant.root / finding.schemes[0] / SHARD)
        plain = {name for name, spec in scheme.items() if spec.dtype == "BF16"}
        assert (finding.code, {p.tensor for p in finding.locations}) == ("CK605", plain)


@pytest.mark.parametrize(
    "name", ["mtp.layers.0.mlp.up_proj.weight", "model.layers.6.mlp.up_proj.weight",
             "model.layers.0.self_attn.rotary_emb.inv_freq"]
)  # fmt: skip
def test_ck606_fires(mutant: Mutant, name: str) -> None:
    with tensors(mutant.base) as found:
        found[name] = Spec("BF16", (4, 4), name)
    everyone = sorted(mutant.root.iterdir(), key=lambda path: (len(path.name), path.name))
    assert mutant.expect("CK606", everyone, place(name)).locations[0].expected == "BF16 [4, 4]"


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("rms_norm_eps", 0.5, "text_config"),
        ("rope_theta", 5e5, ("text_config", "rope_parameters")),
        ("num_attention_heads", 2, "text_config"),
        ("hidden_act", "gelu", "vision_config"),
    ],
)
def test_ck607_fires(
    mutant: Mutant, name: str, value: object, where: str | tuple[str, ...]
) -> None:
    path = mutant[30] / "config.json"
    document = part = json.loads(path.read_text())
    for each in (where,) if isinstance(where, str) else where:
        part = part[each]
    before, part[name] = part[name], value
    write_json(path, document)
    full = f"{'vision.' if where == 'vision_config' else ''}{name}"
    place = Location(shard="config.json", expected=f"{full} {before}", actual=f"{full} {value}")
    mutant.expect("CK607", mutant[30], [place])


def test_ck607_of_a_file_that_was_made_to_hurt(mutant: Mutant) -> None:
    """However many values, however long, however deep, and control characters in them."""
    path = mutant[30] / "config.json"
    document = json.loads(path.read_text())
    document["text_config"]["rms_norm_eps"] = "\x1b[31m" + "x" * 100_000
    document["more"] = {str(n): {"rms_norm_eps": n + 2} for n in range(10_000)}
    deep: dict[str, object] = {}
    for _ in range(300):
        deep = {"a": deep}
    document["deep"] = deep
    write_json(path, document)
    (finding,) = mutant.new()
    assert finding.code == "CK607" and finding.actual is not None and len(finding.actual) < 200
    done = run("check", mutant.root, "--base", mutant.base)  # which looks for control characters
    assert done.code == 1 and len(done.text) < 10_000


def test_ck607_takes_what_one_file_lacks_for_a_default(mutant: Mutant) -> None:
    """And settings where another version of transformers writes them."""
    path = mutant[30] / "config.json"
    document = json.loads(path.read_text())
    text = document.pop("text_config")
    theta = text.pop("rope_parameters")["rope_theta"]
    del text["rms_norm_eps"]
    write_json(path, document | text | {"rope_theta": theta, "attention_dropout": 0.5})
    assert mutant.new() == []


def test_a_dequantized_module_has_to_be_base_s(mutant: Mutant) -> None:
    """One that came from another model is a fault beside the missing coverage."""
    graft(mutant[30], QUANTIZED, mutant.base)
    with tensors(mutant[30]) as found:
        found[f"{QUANTIZED}.weight"] = flip(found[f"{QUANTIZED}.weight"])
    assert {f.code for f in mutant.new()} == {"CK301", "CK601"}
