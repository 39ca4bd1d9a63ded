"""The same sweep gives the same bytes, however Python orders its sets in that run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build import SweepSpec, fp8_tensors, write_json, write_shard
from command import run

SPEC = SweepSpec()


@pytest.fixture
def broken(bug: Path) -> Path:
    """The founding bug with several faults of a kind in one scheme."""
    scheme = bug / SPEC.scheme(30)
    for name in ("one", "two", "three", "four"):
        write_shard(scheme / f"{name}.safetensors", fp8_tensors([]))
    (path,) = scheme.glob("layer-sensitivity/*_coverage_from_baseline.json")
    manifest = json.loads(path.read_text())
    manifest["dropped_layers"] = [f"x{n}.quant_recipe" for n in range(11)]
    write_json(path, manifest)
    tensors = fp8_tensors(SPEC.selected(100))
    kept = {name: spec for name, spec in tensors.items() if not name.endswith("o_proj.input_scale")}
    write_shard(bug / SPEC.scheme(50) / "model.safetensors", kept)
    return bug


@pytest.mark.parametrize("kind", ["text", "json", "markdown"])
def test_reports_do_not_depend_on_the_order_of_sets(broken: Path, kind: str) -> None:
    outputs = {
        run("check", broken, "--format", kind, env={"PYTHONHASHSEED": str(seed)}).out
        for seed in range(6)
    }
    assert len(outputs) == 1


def test_several_faults_are_there(broken: Path) -> None:
    assert run("check", broken, "--json").codes >= {"CK112", "CK201", "CK303", "CK501"}
