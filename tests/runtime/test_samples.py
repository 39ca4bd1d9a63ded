"""samples/ holds what build.py makes of samples/base, and what its manifests say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SWEEP, COPIED = SAMPLES / "sweep", SAMPLES / "copied"
BASELINE = "fp8_autoquant_all_layers_fp8_captions"
SUBSETS = [f"fp8_autoquant_all_layers_top{percent}_captions" for percent in (10, 30, 50, 100)]
Tensor = tuple[str, tuple[int, ...], bytes]
MANIFEST = Path("layer-sensitivity") / "fp8_autoquant_all_layers_fp8_quant_manifest.json"
LIMIT = 12_000_000
# Convolutions may be ranked and selected; ModelOpt never packs them.
NEVER_PACKED = {"visual.patch_embed.proj"}
GROUPS = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj")}

needs_modelopt = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("modelopt", "transformers", "PIL", "requests")),
    reason="needs ckptdiff[modelopt], transformers and pillow",
)


def tensors(scheme: Path) -> dict[str, Tensor]:
    """Every tensor's dtype, shape and bytes, read with nothing that is under test."""
    raw = (scheme / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {
        name: (
            entry["dtype"],
            tuple(entry["shape"]),
            raw[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def key(module: str) -> str:
    """A module's name without the prefixes in which disk and manifests differ."""
    for prefix in ("model.", "language_model."):
        module = module.removeprefix(prefix)
    return module


def quantized(scheme: Path) -> set[str]:
    """The modules whose weights are FP8 and come with a scale."""
    found = tensors(scheme)
    return {
        key(name.removesuffix(".weight"))
        for name, (dtype, _, _) in found.items()
        if dtype == "F8_E4M3" and f"{name}_scale" in found
    }


def declared(scheme: Path) -> set[str]:
    """The modules that the coverage manifest selects, groups expanded."""
    coverage = read_json(
        scheme / "layer-sensitivity" / f"{scheme.name}_coverage_from_baseline.json"
    )
    modules = set()
    for recipe in coverage["selected_layers"]:
        parent, _, leader = recipe.removesuffix(".quant_recipe").rpartition(".")
        modules |= {key(f"{parent}.{name}") for name in GROUPS.get(leader, (leader,))}
    return modules - NEVER_PACKED


def read_json(path: Path) -> dict:
    """A JSON object from disk."""
    return json.loads(path.read_text(encoding="utf-8"))


def ranking(manifest: Path) -> list[str]:
    """The recipes of a baseline manifest, least sensitive first."""
    return [entry["name"] for entry in read_json(manifest)["sensitivity_ranking"]]


def importance(scheme: Path) -> dict[str, float]:
    """AutoQuant's score of each recipe."""
    recipes = read_json(scheme / MANIFEST)["layer_sensitivity"]
    return {name: recipe["importance"] for name, recipe in recipes.items()}


def effective_bits(scheme: Path) -> float:
    """What AutoQuant says that it reached."""
    return float(read_json(scheme / MANIFEST)["autoquant_state"]["constraints"]["effective_bits"])


def text(path: Path) -> str:
    """A config's text, with the versions of the programs that wrote it blotted out."""
    return re.sub(r'("(?:transformers_)?version": )"[^"]*"', r'\1"*"', path.read_text("utf-8"))


def assert_same_export(built: Path, committed: Path) -> None:
    """Configs and tensors agree byte for byte, input scales within 5 %."""
    configs = sorted(path.name for path in committed.glob("*.json"))
    assert sorted(path.name for path in built.glob("*.json")) == configs
    assert {name: text(built / name) for name in configs} == {
        name: text(committed / name) for name in configs
    }
    ours, theirs = tensors(built), tensors(committed)
    assert ours.keys() == theirs.keys()
    # An input scale is a maximum of activations, which processors add up in different orders.
    inputs = {name for name in theirs if name.endswith(".input_scale")}
    changed = {name for name in theirs.keys() - inputs if ours[name] != theirs[name]}
    assert changed == set()
    assert {name: scalar(ours[name]) for name in inputs} == pytest.approx(
        {name: scalar(theirs[name]) for name in inputs}, rel=0.05
    )


def scalar(tensor: Tensor) -> float:
    """The value of a one-element float32 tensor."""
    dtype, _, raw = tensor
    assert dtype == "F32"
    return memoryview(raw).cast("f")[0]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run this Python; -S as an argument hides every installed package."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def build(*arguments: str | Path) -> None:
    """Run samples/build.py as a user does."""
    done = run(SAMPLES / "build.py", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def rebuilt_subsets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The topNN schemes, rebuilt from the committed ranking.

    Not from a new one: scores are sums of floats, and a processor that adds in another order may
    rank near neighbours differently.
    """
    out = tmp_path_factory.mktemp("subsets")
    build(out, "--ranking", SWEEP / BASELINE / MANIFEST)
    return out / "sweep"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, AutoQuant included."""
    out = tmp_path_factory.mktemp("all")
    build(out)
    return out


def test_samples_are_small_plain_files() -> None:
    paths = list(SAMPLES.rglob("*"))
    assert not [path for path in paths if path.is_symlink()]
    assert sum(path.stat().st_size for path in paths if path.is_file()) <= LIMIT


@pytest.mark.parametrize("name", SUBSETS)
def test_a_subset_quantizes_what_it_declares(name: str) -> None:
    assert quantized(SWEEP / name) == declared(SWEEP / name)


@pytest.mark.parametrize("name", SUBSETS)
def test_a_subset_follows_its_baselines_ranking(name: str) -> None:
    for scheme in (SWEEP / name, COPIED / name):
        path = scheme / "layer-sensitivity" / f"{name}_coverage_from_baseline.json"
        coverage = read_json(path)
        assert coverage["selected_layers"] + coverage["dropped_layers"] == ranking(
            scheme / MANIFEST
        )
        assert (scheme / MANIFEST).read_bytes() == (SWEEP / BASELINE / MANIFEST).read_bytes()


@pytest.mark.parametrize("name", SUBSETS)
def test_a_copied_scheme_is_the_baseline_under_another_name(name: str) -> None:
    files = sorted(path.name for path in (SWEEP / BASELINE).iterdir() if path.is_file())
    assert sorted(path.name for path in (COPIED / name).iterdir() if path.is_file()) == files
    for file in files:
        assert (COPIED / name / file).read_bytes() == (SWEEP / BASELINE / file).read_bytes()
    assert quantized(COPIED / name) != declared(COPIED / name)


def test_help_needs_no_package() -> None:
    done = run("-S", SAMPLES / "build.py", "--help")
    assert done.returncode == 0, done.stderr
    assert "--ranking" in done.stdout


@pytest.mark.parametrize("script", ["build.py", "smollm2.py"])
def test_without_modelopt_the_remedy_is_named(script: str, tmp_path: Path) -> None:
    done = run("-S", SAMPLES / script, tmp_path / "out")
    assert done.returncode == 1
    assert "pip install 'ckptdiff[modelopt]'" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_modelopt
@pytest.mark.parametrize("name", SUBSETS)
def test_a_subset_rebuilds_byte_for_byte(rebuilt_subsets: Path, name: str) -> None:
    assert_same_export(rebuilt_subsets / name, SWEEP / name)
    coverage = Path("layer-sensitivity") / f"{name}_coverage_from_baseline.json"
    assert (rebuilt_subsets / name / coverage).read_bytes() == (
        SWEEP / name / coverage
    ).read_bytes()


@needs_modelopt
def test_autoquant_scores_the_recipes_alike(rebuilt: Path) -> None:
    """Nearly alike: another processor's sums differ by some percent and swap close neighbours."""
    assert importance(rebuilt / "sweep" / BASELINE) == pytest.approx(
        importance(SWEEP / BASELINE), rel=0.25
    )


@needs_modelopt
def test_the_baseline_rebuilds_byte_for_byte(rebuilt: Path) -> None:
    """Where AutoQuant chose the same layers. Its scores are sums of floats: on a processor
    that adds in another order it may choose neighbours, under the same budget of bits."""
    built, committed = rebuilt / "sweep" / BASELINE, SWEEP / BASELINE
    if quantized(built) == quantized(committed):
        assert_same_export(built, committed)
    else:
        assert effective_bits(built) == pytest.approx(effective_bits(committed), abs=0.3)


@needs_modelopt
@pytest.mark.parametrize("name", SUBSETS)
def test_copied_schemes_rebuild_as_copies(rebuilt: Path, name: str) -> None:
    assert tensors(rebuilt / "copied" / name) == tensors(rebuilt / "sweep" / BASELINE)
