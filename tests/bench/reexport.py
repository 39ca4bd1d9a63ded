"""Schemes of a model of full size by each engine: seconds, and whether the results agree.

    python tests/bench/reexport.py [--dir DIR] [--formats fp8,nvfp4] [--tiny] [--no-search]

A random Qwen2.5-VL of 3 billion weights (`--tiny`: the sample model), a manifest that selects all
layers and one that selects half of them. For each format ModelOpt writes both; composing writes
the half from the whole (three times: the median counts), then a sweep of ten in one command, and a
search writes the half once more. Every result passes `check --deep` before it gets its name. Times
are of the whole command: import, load, calibrate, pack, write, check, rename. Nothing is asserted;
lines end in what was wanted and whether it is so. Needs the extras probe and modelopt, 90 GB where
DIR is, and a GPU to say anything about one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from ckptdiff import api
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.records.export import ExportOptions
from ckptdiff.records.plan import Engine, Outcome

SAMPLE = Path(__file__).parents[2] / "samples" / "base"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CONFIGS: dict[str, dict[str, Any]] = {
    "fp8": {"quant_algo": "FP8"},
    "nvfp4": {"quant_algo": "NVFP4", "group_size": 16},
}
# Who leads a group in a ranking; the others follow.
LEADERS = (".q_proj", ".o_proj", ".gate_proj", ".down_proj", ".qkv", ".attn.proj", ".mlp.0",
           ".mlp.2")  # fmt: skip
TARGET = 10.0
REPEATS = 3  # of what takes seconds


def write_base(folder: Path) -> None:
    """Random weights in the shape of Qwen2.5-VL-3B-Instruct, with the sample's tokenizer."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    sample = json.loads((SAMPLE / "config.json").read_text())
    ids = {key: value for key, value in sample.items() if key.endswith("_token_id")}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008,
        "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "rope_parameters": rope, "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "patch_size": 14, "out_hidden_size": 2048, "fullatt_block_indexes": [7, 15, 23, 31],
        "window_size": 112,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **ids
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in FILES:
        shutil.copyfile(SAMPLE / name, folder / name)
    images = json.loads((SAMPLE / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(images | {"patch_size": 14}))


def write_stub(base: Path, root: Path, fmt: str, percent: int) -> Path:
    """A scheme whose weights are lost: configs and manifests alone."""
    names = {name.removesuffix(".weight") for name, _, _ in read_checkpoint(base, ".").items()}
    # NVFP4's blocks do not divide the inputs of the vision tower.
    wanted = [
        n for n in sorted(names) if n.endswith(LEADERS) and (fmt == "fp8" or "visual" not in n)
    ]
    random.Random(0).shuffle(wanted)
    ranking = [f"{name}.quant_recipe" for name in wanted]
    count = -(-len(ranking) * percent // 100)
    scheme = root / f"{fmt}_top{percent}"
    folder = scheme / "layer-sensitivity"
    folder.mkdir(parents=True)
    stated = CONFIGS[fmt] | {"kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = CONFIGS[fmt] | {"quant_method": "modelopt"}
    (scheme / "config.json").write_text(json.dumps(config))
    producer = {"name": "modelopt", "version": "0"}
    (scheme / "hf_quant_config.json").write_text(
        json.dumps({"producer": producer, "quantization": stated})
    )
    manifest = {
        "baseline_dir": fmt, "baseline_manifest": f"{fmt}_quant_manifest.json",
        "scheme_name": scheme.name, "top_percent": percent, "coverage_fraction": percent / 100,
        "num_layers_total": len(ranking), "num_layers_selected": count,
        "num_layers_dropped": len(ranking) - count, "selected_layers": ranking[:count],
        "dropped_layers": ranking[count:],
    }  # fmt: skip
    path = folder / f"{scheme.name}_coverage_from_baseline.json"
    path.write_text(json.dumps(manifest))
    return scheme


@contextmanager
def timed() -> Iterator[list[float]]:
    taken: list[float] = []
    start = time.monotonic()
    yield taken
    taken.append(time.monotonic() - start)


def export(
    stub: Path, engine: Engine, base: Path, out: Path, options: ExportOptions, donors: list[Path]
) -> tuple[Path | None, float]:
    """The directory that an engine wrote, and the seconds of the whole command."""
    with timed() as taken:
        planned = api.plan_reexport(
            [stub],
            engine=engine,
            base=base,
            donors=donors,
            out=out,
            options=None if engine == "compose" else options,
        )
        if not planned.report.possible:
            print(f"{stub.name:12} {engine:10} IMPOSSIBLE {planned.report.plans[0]}", flush=True)
            return None, 0.0
        report = api.execute(planned, cache=False)
    (outcome,) = report.outcomes
    say(stub.name, engine, outcome, taken[0])
    return (Path(outcome.target) if outcome.status == "written" else None), taken[0]


def say(scheme: str, engine: str, outcome: Outcome, seconds: float) -> None:
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in outcome.seconds.items())
    end = f"{outcome.bytes / 1e9:.2f} GB" if outcome.status == "written" else "FAILED"
    print(f"{scheme:12} {engine:10} {seconds:8.1f} s  {end}  {stages}", flush=True)
    for note in (outcome.reason, outcome.next_step, *outcome.notes):
        if note:
            print(f"    {note}", flush=True)


def differing(one: Path, other: Path) -> list[str]:
    """Files of two checkpoints that are not the same, manifests left aside."""
    names = {path.name for folder in (one, other) for path in folder.iterdir() if path.is_file()}
    return sorted(name for name in names if not _same(one / name, other / name))


def agreement(found: list[str]) -> str:
    return f"NOT THE SAME {found}" if found else "the same"


def _same(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()) or one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as mine, other.open("rb") as theirs:
        while part := mine.read(1 << 24):
            if part != theirs.read(1 << 24):
                return False
    return True


def compare(fmt: str, base: Path, folder: Path, options: ExportOptions, search: bool) -> None:
    """All engines on one format; what is no longer needed is deleted on the way."""
    whole = write_stub(base, folder / "stubs", fmt, 100)
    half = write_stub(base, folder / "stubs", fmt, 50)
    donor, _ = export(whole, "modelopt", base, folder / "modelopt", options, [])
    if donor is None:
        return
    by_modelopt, slow = export(half, "modelopt", base, folder / "modelopt", options, [])
    seconds = []
    for _ in range(REPEATS):
        shutil.rmtree(folder / "compose", ignore_errors=True)
        composed, quick = export(half, "compose", base, folder / "compose", options, [donor])
        seconds.append(quick)
    if by_modelopt and composed:
        found = differing(by_modelopt, composed)
        print(f"    modelopt and compose: {agreement(found)}")
        verdict("compose, alone in a command,", slow, median(seconds))
        copied(composed, folder / "copy", median(seconds))
        shutil.rmtree(composed)
        verdict("compose, ten in one command,", slow, sweep(fmt, base, folder, donor))
    shutil.rmtree(donor)
    if search and by_modelopt:
        searched, _ = export(half, "autoquant", base, folder / "autoquant", options, [])
        if searched:
            found = differing(by_modelopt, searched)
            print(f"    modelopt and autoquant: {agreement(found)}", flush=True)
            shutil.rmtree(searched)
    if by_modelopt:
        shutil.rmtree(by_modelopt)


def verdict(what: str, slow: float, quick: float) -> None:
    """How many times as fast as ModelOpt a scheme is there."""
    ratio = slow / quick
    met = "met" if ratio >= TARGET else "NOT MET"
    print(f"    {what} is {ratio:.1f} times as fast, wanted {TARGET:.0f}: {met}", flush=True)


def sweep(fmt: str, base: Path, folder: Path, donor: Path) -> float:
    """Seconds a scheme of top10, top20 … top100, composed by one command."""
    stubs = [write_stub(base, folder / "ten", fmt, percent) for percent in range(10, 101, 10)]
    out = folder / "sweep"
    with timed() as taken:
        planned = api.plan_reexport(stubs, engine="compose", base=base, donors=[donor], out=out)
        report = api.execute(planned, cache=False)
    written = sum(outcome.status == "written" for outcome in report.outcomes)
    shutil.rmtree(out)
    print(f"{written:2} schemes   compose    {taken[0]:8.1f} s in one command", flush=True)
    return taken[0] / len(stubs)


def copied(source: Path, target: Path, seconds: float) -> None:
    """What a plain copy of the same files takes, written to the disk."""
    with timed() as taken:
        shutil.copytree(source, target)
        os.sync()
    shutil.rmtree(target)
    share = taken[0] / seconds
    print(f"    a copy of the same files takes {taken[0]:.1f} s, {share:.2f} of compose's time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--formats", default="fp8,nvfp4")
    parser.add_argument("--rows", type=int, default=16, help="calibration rows")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--tiny", action="store_true", help="the sample model instead")
    parser.add_argument("--no-search", action="store_true")
    options = parser.parse_args()
    chosen = ExportOptions(calib_samples=options.rows, calib_length=options.length)
    options.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="ckptdiff-bench-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / ".cache")
        base = folder / "base"
        with timed() as taken:
            if options.tiny:
                shutil.copytree(SAMPLE, base)
            else:
                write_base(base)
        print(f"base         {taken[0]:19.1f} s", flush=True)
        for fmt in options.formats.split(","):
            compare(fmt, base, folder, chosen, not options.no_search)


if __name__ == "__main__":
    main()
