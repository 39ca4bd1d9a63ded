"""What the api says of one scheme, module or tensor, against torch, safetensors and counting."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path

import build
import numpy as np
import pytest
import torch
from safetensors import safe_open

from ckptdiff import api
from ckptdiff.errors import Cancelled, RootError, UsageError
from ckptdiff.events import CancelToken, Event, Started
from ckptdiff.records.detail import ValueDetail

SAMPLES = Path(__file__).parents[3] / "samples"
TOP30 = SAMPLES / "sweep" / "fp8_autoquant_all_layers_top30_captions"
SPEC = build.SweepSpec()


def loaded(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_describes(found: ValueDetail, values: torch.Tensor) -> None:
    """Every number of `found`, worked out anew in float64."""
    flat = values.to(torch.float64).reshape(-1).numpy()
    finite = flat[np.isfinite(flat)]
    assert found.elements == flat.size
    assert found.nonfinite == flat.size - finite.size
    assert found.zeros == int((finite == 0).sum())
    if not finite.size:
        assert found.least is found.greatest is found.mean is found.deviation is None
        assert found.histogram == ()
        return
    assert found.least == finite.min()
    assert found.greatest == finite.max()
    assert found.mean == pytest.approx(math.fsum(finite) / finite.size, rel=1e-12, abs=1e-15)
    assert found.deviation == pytest.approx(finite.std(), rel=1e-9, abs=1e-12)
    counts, edges = np.histogram(finite, len(found.histogram), (finite.min(), finite.max()))
    assert [count for _, _, count in found.histogram] == counts.tolist()
    assert [low for low, _, _ in found.histogram] == pytest.approx(edges[:-1].tolist())


def test_values_of_every_tensor_of_a_real_export() -> None:
    tensors = loaded(TOP30)
    quantized = {name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn}
    assert len(quantized) == 18
    for name, stored in tensors.items():
        found = api.values(TOP30, name)
        assert found.dequantised == (name in quantized)
        assert found.shape == tuple(stored.shape)
        values = stored.to(torch.float32)
        if name in quantized:
            assert_describes(api.values(TOP30, name, raw=True), values)
            values = values * tensors[f"{name}_scale"]
        assert_describes(found, values)


@pytest.mark.parametrize(
    "values",
    [[1.0, math.nan, -2.0, math.inf, 0.0], [3.0, 3.0], [math.nan], [0.0], [-math.inf, math.inf]],
)
def test_values_that_are_odd(values: list[float], tmp_path: Path) -> None:
    raw = np.array(values, np.float32).tobytes()
    build.write_scheme(tmp_path / "x", {"a.weight": build.Spec("F32", (len(values),), "a", raw)})
    found = api.values(tmp_path / "x", "a.weight")
    # One value has no range: numpy then makes one up, a half to either side.
    assert_describes(found, torch.tensor(values))


def test_values_that_cannot_be_had(sweep: Path) -> None:
    path = sweep / SPEC.scheme(30)
    with pytest.raises(UsageError, match="no tensor nothing"):
        api.values(path, "nothing")
    with pytest.raises(RootError):
        api.values(sweep / "nothing", "x")
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        api.values(path, "model.norm.weight", cancel=cancel)
    shard = path / "model.safetensors"
    last = list(build.fp8_tensors(SPEC.selected(30)))[-1]
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(UsageError, match="cannot be read"):
        api.values(path, last)


def test_a_module_of_the_founding_bug() -> None:
    path = SAMPLES / "copied" / "fp8_autoquant_all_layers_top10_captions"
    found = api.module(path, "model.layers.0.mlp.gate_proj")
    assert (found.quantized, found.selected) == (True, False)
    assert found.layouts == ("fp8",)
    assert found.algorithm == "FP8"
    assert found.recipe is not None
    assert found.recipe.members == ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj")
    assert found.recipe.total == 31
    manifest = json.loads(
        next((path / "layer-sensitivity").glob("*_quant_manifest.json")).read_text()
    )
    ranking = [item["name"] for item in manifest["sensitivity_ranking"]]
    assert ranking[(found.recipe.rank or 0) - 1] == found.recipe.name
    assert found.recipe.importance == pytest.approx(
        manifest["layer_sensitivity"][found.recipe.name]["importance"]
    )
    assert api.module(path, found.key) == found


def test_the_byte_ranges_of_a_module(sweep: Path) -> None:
    path = sweep / SPEC.scheme(100)
    name = SPEC.selected(100)[0]
    found = api.module(path, name)
    assert {t.name.removeprefix(f"{name}.") for t in found.tensors} == {
        "weight", "weight_scale", "input_scale"
    }  # fmt: skip
    specs = build.fp8_tensors(SPEC.selected(100))
    data = (path / "model.safetensors").read_bytes()
    for tensor in found.tensors:
        assert data[tensor.begin : tensor.end] == specs[tensor.name].data()
        assert (tensor.dtype, tensor.shape) == (specs[tensor.name].dtype, specs[tensor.name].shape)
    with pytest.raises(UsageError, match="no module"):
        api.module(path, "model.nothing")


def test_what_the_documents_of_a_scheme_say() -> None:
    facts = {(f.source, f.label): f.value for f in api.details(TOP30).facts}
    coverage = f"layer-sensitivity/{TOP30.name}_coverage_from_baseline.json"
    assert facts[coverage, "declares"] == "30 %, 10 of 31 recipes"
    assert facts["config.json", "layers"] == "6"
    assert facts["hf_quant_config.json", "algorithm"] == "FP8"
    assert facts["files", "shards"] == "1"
    with pytest.raises(RootError):
        api.details(SAMPLES / "nothing")


def test_overlap_against_comparing_bytes() -> None:
    root = SAMPLES / "sweep"
    found = api.overlap(root)
    assert found.schemes[0] == "../base"
    tensors = {id: loaded(root / id) for id in found.schemes}
    for (i, one), (j, other) in itertools.product(enumerate(found.schemes), repeat=2):
        same = [
            name
            for name, tensor in tensors[one].items()
            if name in tensors[other]
            and tensors[other][name].dtype == tensor.dtype
            and tensors[other][name].shape == tensor.shape
            and raw(tensors[other][name]) == raw(tensor)
        ]
        assert found.tensors[i][j] == len(same), (one, other)
        assert found.shared[i][j] == sum(tensors[one][name].nbytes for name in same)
    for i, id in enumerate(found.schemes):
        assert found.nbytes[i] == sum(tensor.nbytes for tensor in tensors[id].values())
        assert found.counts[i] == len(tensors[id])


def test_overlap_does_not_guess(sweep: Path) -> None:
    shard = sweep / SPEC.scheme(30) / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-2])
    found = api.overlap(sweep)
    lost = found.schemes.index(SPEC.scheme(30))
    assert set(found.shared[lost]) == {None}
    assert {row[lost] for row in found.shared} == {None}
    others = [n for n in range(len(found.schemes)) if n != lost]
    assert all(found.shared[i][j] is not None for i in others for j in others)


def test_overlap_reads_nothing_that_check_has_read(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the files were older than the two seconds for which nothing is remembered.
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10**10)
    read: list[Event] = []
    api.check(sweep)
    found = api.overlap(sweep, sink=read.append)
    assert not [event for event in read if isinstance(event, Started) and event.unit == "bytes"]
    assert found == api.overlap(sweep, cache=False)


def test_differences_of_every_weight_of_a_real_export() -> None:
    base, tensors = loaded_base(), loaded(TOP30)
    compared = 0
    for name, stored in tensors.items():
        if name not in base:
            continue
        values = stored.to(torch.float32)
        quantized = stored.dtype == torch.float8_e4m3fn
        found = api.differences(SAMPLES / "base", TOP30, name)
        if quantized:
            values = values * tensors[f"{name}_scale"]
        assert (found.name, found.raw) == (name, False)
        assert (found.a.dequantised, found.b.dequantised) == (False, quantized)
        one, other = base[name].to(torch.float64), values.to(torch.float64)
        assert_describes(found.a, one)
        assert_describes(found.b, other)
        assert found.difference is not None
        assert_describes(found.difference, other - one)
        compared += quantized
    assert compared == 18


def loaded_base() -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted((SAMPLES / "base").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def test_raw_differences_are_of_what_is_stored() -> None:
    """Codes of one format are subtracted; codes and plain values have no difference."""
    full = SAMPLES / "sweep" / "fp8_autoquant_all_layers_top100_captions"
    ours, theirs, base = loaded(TOP30), loaded(full), loaded_base()
    both = [
        name
        for name, tensor in ours.items()
        if tensor.dtype == theirs[name].dtype == torch.float8_e4m3fn
    ]
    assert both
    for name in both:
        found = api.differences(TOP30, full, name, raw=True)
        one, other = (tensors[name].to(torch.float64) for tensors in (ours, theirs))
        assert not found.a.dequantised
        assert_describes(found.a, one)
        assert_describes(found.b, other)
        assert found.difference is not None
        assert_describes(found.difference, other - one)
        against = api.differences(SAMPLES / "base", TOP30, name, raw=True)
        assert against.difference is None
        assert_describes(against.a, base[name])
        assert_describes(against.b, one)


def test_differences_of_infinities(tmp_path: Path) -> None:
    sides = {"a": [1.0, math.inf, math.nan, 2.0], "b": [1.5, math.inf, 0.0, -math.inf]}
    for side, values in sides.items():
        data = np.array(values, np.float32).tobytes()
        build.write_scheme(tmp_path / side, {"x.weight": build.Spec("F32", (4,), side, data)})
    found = api.differences(tmp_path / "a", tmp_path / "b", "x.weight")
    assert found.difference is not None
    assert (found.difference.nonfinite, found.difference.least) == (3, 0.5)
    assert (found.a.nonfinite, found.b.nonfinite) == (2, 2)


def test_differences_that_cannot_be_had(tmp_path: Path) -> None:
    for side, shape in (("a", (4,)), ("b", (2,))):
        data = np.zeros(shape, np.float32).tobytes()
        tensors = {"x.weight": build.Spec("F32", shape, side, data)}
        if side == "a":
            tensors["y.weight"] = build.Spec("F32", shape, side, data)
        build.write_scheme(tmp_path / side, tensors)
    for name, word in (("x.weight", "shapes"), ("y.weight", "not both"), ("z", "not both")):
        with pytest.raises(UsageError, match=word):
            api.differences(tmp_path / "a", tmp_path / "b", name)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        api.differences(tmp_path / "a", tmp_path / "a", "x.weight", cancel=token)
