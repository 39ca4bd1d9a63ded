"""Composed schemes against ModelOpt's own exports of the same subsets, file by file."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ckptdiff
from ckptdiff.records.plan import PlanReport
from tests.exports import Cell, base_of, cells, ensure, start_child

FILES = ("model.safetensors", "config.json", "hf_quant_config.json", "generation_config.json")
# AWQ of NVFP4 folds scales across layers, so that no subset of it can be composed.
CELLS = [cell for cell in cells("ci") if cell.fmt != "nvfp4_awq"]
REFUSED = [cell for cell in cells("ci") if cell.fmt == "nvfp4_awq"]
# Formats that hold nothing but what base gives: no donor is needed.
WEIGHT_ONLY = (
    "fp8_pcpt",
    "fp8_pb_wo",
    "int8_wo",
    "w4a16_nvfp4",
    "mxfp8",
    "mxfp4",
    "w4a8_mxfp4_fp8",
)

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def child() -> Iterator[ProcessPoolExecutor]:
    """One process for all that ModelOpt is asked here: it takes seconds to import, and talks."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=start_child) as pool:
        yield pool


def schemes(root: Path) -> tuple[Path, Path]:
    """(top50, top100) of a cell."""
    half, whole = sorted(root.iterdir(), key=lambda path: "top100" in path.name)
    return half, whole


def compose(root: Path, out: Path, **options: object) -> PlanReport:
    half, whole = schemes(root)
    options = {"engine": "compose", "donors": [whole], **options}
    planned = ckptdiff.plan_reexport([half], out=out, **options)  # type: ignore[arg-type]
    if not planned.report.possible:
        return planned.report
    return ckptdiff.execute(planned)


def assert_same(target: Path, export: Path) -> None:
    for name in FILES:
        assert (target / name).read_bytes() == (export / name).read_bytes(), name


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_subset_is_what_modelopt_exports(
    exports: dict[Cell, Path], cell: Cell, tmp_path: Path
) -> None:
    half, _ = schemes(exports[cell])
    report = compose(exports[cell], tmp_path)
    assert [outcome.status for outcome in report.outcomes] == ["written"], report
    assert_same(tmp_path / half.name, half)
    (plan,) = report.plans
    searched = {"int4_awq": "all", "w4a8_awq": "all", "int8_sq": "attention"}.get(cell.fmt)
    distant = [module for module in plan.selected if module.evidence == "distance"]
    assert bool(distant) == (searched is not None)
    assert any("weaker" in note for note in plan.notes) == bool(distant)


@pytest.mark.parametrize("cell", REFUSED, ids=lambda cell: cell.name)
def test_what_cannot_be_composed_is_refused(
    exports: dict[Cell, Path], cell: Cell, tmp_path: Path
) -> None:
    (plan,) = compose(exports[cell], tmp_path).plans
    assert not plan.possible and "NVFP4_AWQ folds" in plan.refused[0]
    assert plan.selected and {module.evidence for module in plan.selected} == {"distance"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "cell", [cell for cell in cells("ci") if cell.fmt in WEIGHT_ONLY], ids=lambda cell: cell.name
)
def test_formats_without_activations_need_no_donor(
    exports: dict[Cell, Path], cell: Cell, tmp_path: Path
) -> None:
    half, _ = schemes(exports[cell])
    alone = tmp_path / "quantized" / half.name
    shutil.copytree(half, alone)
    base = base_of(exports[cell].parents[1], cell)
    shutil.copy(base / "model.safetensors", alone)  # it holds no quantized module any more
    planned = ckptdiff.plan_reexport([alone], engine="compose", base=base)
    (plan,) = planned.report.plans
    assert plan.donors == () and all(module.source is None for module in plan.selected)
    (outcome,) = ckptdiff.execute(planned).outcomes
    assert outcome.status == "written", outcome
    assert_same(Path(outcome.target), half)


@pytest.mark.parametrize(("arch", "count"), [("llama", 68), ("qwen2_5_vl", 22), ("qwen3_moe", 10)])
def test_random_partitions(
    corpus: Path, child: ProcessPoolExecutor, tmp_path: Path, arch: str, count: int
) -> None:
    """A hundred random subsets in FP8, by ModelOpt and by us."""
    cell = Cell(arch, True, "bf16", "fp8")
    root, base = ensure(corpus, [cell])[cell], base_of(corpus, cell)
    _, whole = schemes(root)
    theirs = tmp_path / "modelopt"
    child.submit(_export, arch, base, theirs, count).result()
    planned = ckptdiff.plan_reexport(
        sorted(theirs.iterdir()), engine="compose", base=base, donors=[whole], out=tmp_path / "ours"
    )
    report = ckptdiff.execute(planned)
    assert [outcome.status for outcome in report.outcomes] == ["written"] * count, report
    for number in range(count):
        assert_same(tmp_path / "ours" / str(number), theirs / str(number))


def _export(arch: str, base: Path, out: Path, count: int) -> None:
    from tests.exports_partitions import save_partitions

    save_partitions(arch, "fp8", base, out, range(count))


def test_configs_are_what_modelopt_converts(child: ProcessPoolExecutor) -> None:
    """A mixture of which one format is left, and mixtures of every format that there is."""
    child.submit(_compare_configs).result()


def _compare_configs() -> None:
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.export.quant_utils import process_layer_quant_config

    from ckptdiff.analysis.composing.export_configs import model_document, quant_document

    formats = {
        "fp8": ("FP8", 0), "fp8_pc_pt": ("FP8_PER_CHANNEL_PER_TOKEN", 0), "int8_wo": ("W8A16", 0),
        "int8_sq": ("W8A8_SQ_PER_CHANNEL", 0), "nvfp4": ("NVFP4", 16), "mxfp8": ("MXFP8", 32),
        "w4a16_nvfp4": ("W4A16_NVFP4", 16), "w4a8_nvfp4_fp8": ("W4A8_NVFP4_FP8", 32),
        "w4a8_mxfp4_fp8": ("W4A8_MXFP4_FP8", 32), "int4_awq": ("W4A16_AWQ", 128),
        "w4a8_awq": ("W4A8_AWQ", 128), "mxfp4": ("mxfp4", 0),
    }  # fmt: skip
    names = [f"model.layers.{n}.mlp.{leaf}_proj" for n in range(12) for leaf in ("up", "down")]

    def theirs(chosen: dict[str, str]) -> dict[str, Any]:
        layers: dict[str, object] = {}
        for name in names:
            layers[f"{name}.quantization"] = chosen.get(name)
            size = formats[chosen[name]][1] if name in chosen else 0
            layers[f"{name}.awq_block_size"] = size
        document: dict[str, Any] = {"producer": {"name": "modelopt", "version": "0.47.0"}}
        return document | {"quantization": process_layer_quant_config(layers)}

    def entry(kind: str) -> dict[str, object]:
        """What a mixture lists of a module in this format."""
        other = "int8_wo" if kind == "fp8" else "fp8"
        mixed = theirs({names[0]: kind, names[1]: other})["quantization"]
        found: dict[str, object] = mixed["quantized_layers"][names[0]]
        return found

    kinds = list(formats)
    mixtures = [dict(zip(names, kinds * 2, strict=True))]
    mixtures += [dict.fromkeys(names[:7:2], kind) for kind in kinds]
    mixtures += [{names[n]: kinds[n % 3], names[n + 9]: kinds[n % 5]} for n in range(12)]
    whole = theirs(mixtures[0])
    config = {"model_type": "llama", "quantization_config": convert_hf_quant_config_format(whole)}
    for mixture in mixtures:
        wanted = theirs(mixture)
        layers = {name: entry(mixture[name]) for name in names if name in mixture}
        ours = quant_document(whole, layers, [name for name in names if name not in mixture])
        assert json.dumps(ours) == json.dumps(wanted)
        ours = model_document(config, ours)["quantization_config"]
        assert json.dumps(ours) == json.dumps(convert_hf_quant_config_format(wanted))


@pytest.mark.parametrize(
    ("fmt", "shares"), [("fp8", False), ("mxfp4", False), ("nvfp4", True), ("int4_awq", True)]
)
def test_a_part_of_a_group_is_refused_where_it_shares_scales(
    corpus: Path, tmp_path: Path, fmt: str, shares: bool
) -> None:
    cell = Cell("llama", False, "bf16", fmt)
    root = ensure(corpus, [cell])[cell]
    _, whole = schemes(root)
    scheme = tmp_path / "quantized" / "part"
    shutil.copytree(whole, scheme)
    attention = [f"model.layers.0.self_attn.{leaf}_proj.quant_recipe" for leaf in "qkv"]
    (path,) = scheme.glob("layer-sensitivity/*_coverage_from_baseline.json")
    manifest = json.loads(path.read_text())
    # Ranked one by one, they are no group to the manifest.
    others = [name for name in manifest["selected_layers"] if name != attention[0]]
    dropped = attention[1:] + others
    manifest |= {"selected_layers": attention[:1], "dropped_layers": dropped}
    manifest |= {"num_layers_total": len(dropped) + 1, "num_layers_selected": 1}
    manifest |= {"num_layers_dropped": len(dropped), "top_percent": None, "coverage_fraction": None}
    for baseline in scheme.glob("layer-sensitivity/*_quant_manifest.json"):
        baseline.unlink()
    path.write_text(json.dumps(manifest))
    planned = ckptdiff.plan_reexport(
        [scheme], engine="compose", base=base_of(corpus, cell), donors=[whole]
    )
    (plan,) = planned.report.plans
    if shares:
        assert not plan.possible and "would share scales" in plan.refused[0]
    else:
        assert [m.module for m in plan.selected] == ["model.layers.0.self_attn.q_proj"]
        (outcome,) = ckptdiff.execute(planned).outcomes
        # It would be as ModelOpt exports it, and vLLM would refuse to load it.
        assert outcome.status == "failed" and "CK405" in (outcome.reason or "")
