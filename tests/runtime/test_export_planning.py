"""What is ordered of ModelOpt to repair a real export: the preset it was made with, no more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mutate import coverage

from ckptdiff import api
from ckptdiff.jobs.export_planning import ExportJob
from ckptdiff.records.export import ExportOptions, ExportOrder
from tests.exports import Cell, base_of, cells
from tests.exports_formats import FORMATS

CELLS = cells("ci")
DTYPES = {"bf16": "BF16", "f16": "F16", "f32": "F32"}

pytestmark = pytest.mark.timeout(1500)


def job_of(scheme: Path, base: Path, out: Path, engine: str = "modelopt") -> ExportJob:
    planned = api.plan_reexport(
        [scheme],
        engine=engine,
        base=base,
        out=out,
        options=ExportOptions(),  # type: ignore[arg-type]
    )
    (job,) = planned.jobs
    assert isinstance(job, ExportJob)
    return job


def order_of(job: ExportJob) -> ExportOrder:
    assert job.order is not None, job.plan
    return job.order


def half(root: Path) -> Path:
    (found,) = root.glob("*top50*")
    return found


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_order_is_how_the_export_was_made(
    exports: dict[Cell, Path], corpus: Path, cell: Cell, tmp_path: Path
) -> None:
    job = job_of(half(exports[cell]), base_of(corpus, cell), tmp_path)
    order, form = order_of(job), FORMATS[cell.fmt]
    assert {preset.name for preset in order.presets} == set(form.presets)
    assert order.kv_cache == form.kv_preset
    assert order.dtype == DTYPES[cell.dtype]
    keys = [key for preset in order.presets for key in preset.modules or ()]
    assert len(keys) == len(set(keys))
    packed = {key for key in keys if "patch_embed" not in key}
    assert len(packed) == len(job.plan.selected)
    searched = form.awq or cell.fmt == "int8_sq"
    evidence = {module.evidence for module in job.plan.selected}
    assert evidence == {"distance" if searched else "proven"}


def test_a_search_does_not_mix_formats_anew(
    exports: dict[Cell, Path], corpus: Path, tmp_path: Path
) -> None:
    cell = Cell("llama", False, "bf16", "mixed")
    job = job_of(half(exports[cell]), base_of(corpus, cell), tmp_path, "autoquant")
    assert job.order is None and "it mixes formats" in job.plan.refused[0]


def test_experts_of_a_layer_are_not_split(
    exports: dict[Cell, Path], corpus: Path, tmp_path: Path
) -> None:
    cell = Cell("qwen3_moe", False, "bf16", "fp8")
    scheme = shutil.copytree(half(exports[cell]), tmp_path / "scheme")
    with coverage(scheme) as manifest:
        (expert, *_) = [n for n in manifest["selected_layers"] if "experts" in n]
        manifest["selected_layers"].remove(expert)
        manifest["selected_layers"].append(
            expert.replace("experts.quant_recipe", "experts.0.up_proj.quant_recipe")
        )
        manifest["dropped_layers"].append(
            expert.replace("experts.quant_recipe", "experts.1.up_proj.quant_recipe")
        )
    job = job_of(scheme, base_of(corpus, cell), tmp_path / "out")
    assert job.order is None
    assert any("treats them as one" in reason for reason in job.plan.refused), job.plan


def test_without_a_base_there_is_nothing_to_quantize(
    exports: dict[Cell, Path], tmp_path: Path
) -> None:
    cell = Cell("llama", False, "bf16", "fp8")
    lonely = shutil.copytree(half(exports[cell]), tmp_path / "alone" / "scheme")
    planned = api.plan_reexport([lonely], engine="modelopt", options=ExportOptions())
    assert "there is no base" in planned.report.plans[0].refused[0]


def test_a_healthy_original_is_not_said_to_fail(
    exports: dict[Cell, Path], corpus: Path, tmp_path: Path
) -> None:
    """Whoever plans, the same is said of what stays beside its re-export."""
    cell = Cell("llama", False, "bf16", "fp8")
    scheme, base = half(exports[cell]), base_of(corpus, cell)
    notes = job_of(scheme, base, tmp_path).plan.notes
    donor = next(exports[cell].glob("*top100*"))
    (composed,) = api.plan_reexport([scheme], donors=[donor], base=base, out=tmp_path).jobs
    (said,) = (note for note in notes if "goes on failing" in note)
    assert "if it does now" in said and said in composed.plan.notes
