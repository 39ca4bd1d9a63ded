"""Build a sweep of FP8 schemes with ModelOpt: an AutoQuant baseline and exact subsets of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import manifests
import modelopt.torch.quantization as mtq
import torch
from command import make_readable, report
from manifests import Json
from modelopt.torch.export import export_hf_checkpoint
from transformers import PreTrainedModel

Batch = dict[str, torch.Tensor]

PERCENTS = (10, 30, 50, 100)
EFFECTIVE_BITS = 11.0
_FP8 = {"num_bits": (4, 3), "axis": None}
# ModelOpt's FP8 preset leaves vision towers alone; a sweep over *all* layers wants them as well.
FP8_ALL_LAYERS = {
    "quant_cfg": [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": _FP8},
        {"quantizer_name": "*input_quantizer", "cfg": _FP8},
        {"quantizer_name": "*lm_head*", "enable": False},
        {"quantizer_name": "*", "parent_class": "nn.Embedding", "enable": False},
    ],
    "algorithm": "max",
}


@dataclass(frozen=True)
class Job:
    """One sweep: a base checkpoint, how to load it, what to calibrate on and where to write."""

    base: Path
    out: Path
    data: str
    load: Callable[[Path], PreTrainedModel]
    batches: Sequence[Batch]

    def scheme(self, kind: str, name: str) -> Path:
        """The folder of a scheme of the `sweep` or of the `copied` ones."""
        return self.out / kind / name

    @property
    def baseline(self) -> Path:
        """The folder of the AutoQuant export."""
        return self.scheme("sweep", manifests.baseline_name(self.data))

    @property
    def samples(self) -> int:
        """How many samples the batches hold."""
        return sum(len(batch["input_ids"]) for batch in self.batches)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence file descriptors 1 and 2: AutoQuant's solver is a subprocess of 200 lines."""
    saved = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as null:
        for descriptor in (1, 2):
            os.dup2(null.fileno(), descriptor)
        try:
            yield
        finally:
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Report a step and its wall time."""
    start = time.monotonic()
    yield
    report(f"{what}: {time.monotonic() - start:.1f} s")


def _linears(model: PreTrainedModel) -> dict[str, str]:
    """Converted linears by live name; lm_head is tied to the embedding and stays out."""
    return {
        name: type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and hasattr(module, "weight_quantizer")
        if name != "lm_head"
    }


def _check_groups(stats: Json) -> None:
    """Fail if ModelOpt groups linears in another way than the manifests are read."""
    for recipe, entry in stats.items():
        theirs = {manifests.manifest_name(name) for name in entry["module_names"]}
        ours = set(manifests.members(manifests.manifest_name(recipe)))
        if theirs != ours:
            raise RuntimeError(f"{recipe} groups {sorted(theirs)}, expected {sorted(ours)}")


def _export(model: PreTrainedModel, job: Job, target: Path) -> None:
    """Export a quantized model; tokenizer, processor and generation config come from the base."""
    shutil.rmtree(target, ignore_errors=True)
    # ModelOpt packs from the dtype it finds, and leaves unquantized float32 weights in float32.
    model.to(torch.bfloat16)
    export_hf_checkpoint(model, dtype=torch.bfloat16, export_dir=target)
    for path in job.base.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copyfile(path, target / path.name)
    make_readable(target)


def build_baseline(job: Job) -> Json:
    """Let AutoQuant spend a budget of bits, export the result and return its manifest."""
    with quiet():
        model, state = mtq.auto_quantize(
            job.load(job.base),
            constraints={"effective_bits": EFFECTIVE_BITS},
            quantization_formats=[FP8_ALL_LAYERS],
            data_loader=job.batches,
            forward_step=lambda model, batch: model(**batch),
            loss_func=lambda output, batch: output.loss,
            disabled_layers=["*lm_head*"],
            num_calib_steps=len(job.batches),
            num_score_steps=len(job.batches),
            method="gradient",
        )
        _check_groups(state["candidate_stats"])
        manifest = manifests.baseline_manifest(state, _linears(model), EFFECTIVE_BITS, job.samples)
        _export(model, job, job.baseline)
    manifests.write(job.baseline, manifests.BASELINE_MANIFEST, manifest)
    return manifest


def _subset_config(model: PreTrainedModel, dropped: set[str]) -> Json:
    """FP8 everywhere but in the dropped modules. The last matching entry wins."""
    disabled = [
        # The final dot keeps `layers.1` from also hitting `layers.10`.
        {"quantizer_name": f"{name}.*", "enable": False}
        for name, _ in model.named_modules()
        if manifests.manifest_name(name) in dropped
    ]
    return FP8_ALL_LAYERS | {"quant_cfg": FP8_ALL_LAYERS["quant_cfg"] + disabled}


def build_subset(job: Job, baseline: Json, percent: int) -> None:
    """Quantize exactly the recipes that a topNN scheme selects, and export them."""
    coverage = manifests.coverage_manifest(baseline, percent, job.data)
    target = job.scheme("sweep", coverage["scheme_name"])

    @torch.no_grad()
    def calibrate(model: PreTrainedModel) -> None:
        for batch in job.batches:
            model(**batch)

    with quiet():
        model = job.load(job.base)
        config = _subset_config(model, manifests.expand(coverage["dropped_layers"]))
        model = mtq.quantize(model, config, calibrate)
        _export(model, job, target)
    manifests.write_coverage(target, baseline, percent, job.data)


def build_copy(job: Job, baseline: Json, percent: int) -> None:
    """The bug: the baseline's files under a subset's name, with that subset's manifest."""
    target = job.scheme("copied", manifests.subset_name(percent, job.data))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in job.baseline.iterdir():
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    manifests.write_coverage(target, baseline, percent, job.data)


def build_subsets(job: Job, baseline: Json) -> None:
    """All topNN schemes that belong to a baseline's ranking."""
    for percent in PERCENTS:
        with timed(f"top{percent}"):
            build_subset(job, baseline, percent)


def build_all(job: Job) -> None:
    """The sweep as it should be, and the sweep as the bug leaves it."""
    with timed("baseline"):
        baseline = build_baseline(job)
    build_subsets(job, baseline)
    with timed("copied"):
        for percent in PERCENTS:
            build_copy(job, baseline, percent)
