"""`probe` at full size on a GPU: ten schemes against loading the base once plus eleven forwards.

    python tests/bench/probe.py [--dir /dev/shm/probe] [--real] [--small] [--device cuda]

Builds a random Qwen2.5-VL-3B and ten FP8 schemes of it (top10 … top100, by layers), and prints
what, ours, rival, ratio, target; nothing is asserted. Layers are files that the schemes share by
hard links; `--real` gives every scheme files of its own, which takes 64 GB. `--small` shrinks the
model, to try the script. Then image prompts, and CPU against GPU on the samples.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import ckptdiff  # noqa: E402
from ckptdiff.events import CancelToken, silent  # noqa: E402
from ckptdiff.formats.prompts import default_prompts  # noqa: E402
from ckptdiff.jobs.hashing import Hashing, digest_shards  # noqa: E402
from ckptdiff.jobs.probing import ProbeOptions, ProbeRun, _known, _request, _take  # noqa: E402
from ckptdiff.jobs.reading import read_one, read_sweep  # noqa: E402
from ckptdiff.runtime import load_model  # noqa: E402
from ckptdiff.runtime import probe as child  # noqa: E402
from ckptdiff.runtime.prompts import Encoder, _processor  # noqa: E402
from ckptdiff.runtime.scoring import Scorer, batches  # noqa: E402
from ckptdiff.runtime.skeleton import read_config, skeleton  # noqa: E402

SAMPLES = ROOT / "samples"
PERCENTS = range(10, 101, 10)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def config(small: bool) -> transformers.Qwen2_5_VLConfig:
    """Qwen2.5-VL-3B, with the special tokens of the samples' tokenizer."""
    text = {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008,
        "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "max_position_embeddings": 128_000, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
        },
        # As transformers 4 spells the same.
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]},
        "bos_token_id": 505, "eos_token_id": 507, "pad_token_id": 505,
    }  # fmt: skip
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "out_hidden_size": 2048, "patch_size": 14, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    if small:
        text |= {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512}
        text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
        vision |= {"depth": 2, "hidden_size": 64, "num_heads": 2, "out_hidden_size": 256}
        vision |= {"intermediate_size": 128, "fullatt_block_indexes": [1]}
    return transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=510,
        video_token_id=511,
        vision_start_token_id=508,
        vision_end_token_id=509,
        tie_word_embeddings=True,
        dtype="bfloat16",
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


def on_disk(name: str) -> str:
    """The name that checkpoints have for a live parameter."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def unit_of(name: str) -> str:
    """The layer or block that a tensor belongs to; "rest" for all else."""
    for prefix in ("model.layers.", "visual.blocks."):
        if name.startswith(prefix):
            return prefix + name.removeprefix(prefix).partition(".")[0]
    return "rest"


def fp8(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of an FP8 export of one parameter: the closed form, scale = amax / 448."""
    if weight.ndim != 2 or not name.endswith(".weight") or "embed" in name:
        yield name, weight
        return
    module = name.removesuffix(".weight")
    scale = weight.abs().amax().float() / 448
    yield name, (weight.float() / scale).to(torch.float8_e4m3fn)
    yield f"{module}.weight_scale", scale
    yield f"{module}.input_scale", torch.ones((), device=weight.device)


def build(root: Path, device: torch.device, small: bool, real: bool) -> tuple[Path, Path]:
    """The base and the ROOT of its ten schemes."""
    base, pool, sweep = root / "base", root / ".pool", root / "sweep"
    for folder in (base, pool, sweep):
        folder.mkdir(parents=True)
    config(small).save_pretrained(base)
    generator = torch.Generator(device).manual_seed(0)
    units: dict[str, dict[str, torch.Tensor]] = {}
    for name, parameter in skeleton(base).named_parameters():
        tensor = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
        if "norm" in name and name.endswith("weight"):
            tensor.fill_(1)
        else:
            tensor.normal_(std=0.02, generator=generator)
        units.setdefault(unit_of(on_disk(name)), {})[on_disk(name)] = tensor
    weight_maps: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for number, (unit, tensors) in enumerate(units.items()):
        plain, quantized = f"{number:03}.bf16", f"{number:03}.fp8"
        codes = dict(pair for name, t in tensors.items() for pair in fp8(name, t))
        for file, state in ((plain, tensors), (quantized, codes)):
            path = pool / f"{file}.safetensors"
            save_file({k: v.cpu() for k, v in state.items()}, path, metadata={"format": "pt"})
        weight_maps[unit] = (
            dict.fromkeys(tensors, f"{plain}.safetensors"),
            dict.fromkeys(codes, f"{quantized}.safetensors"),
        )
    layers = [unit for unit in units if unit != "rest"]
    place(base, pool, [weight_maps[unit][0] for unit in units], real=False)
    for name in TOKENIZER:
        shutil.copyfile(SAMPLES / "base" / name, base / name)
    images = json.loads((SAMPLES / "base" / "preprocessor_config.json").read_text())
    images |= {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 200_704}}
    (base / "preprocessor_config.json").write_text(json.dumps(images))
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8"}
    document = json.loads((base / "config.json").read_text())
    for percent in PERCENTS:
        scheme = sweep / f"fp8_top{percent}"
        scheme.mkdir()
        chosen = set(layers[: max(1, round(percent / 100 * len(layers)))])
        maps = [weight_maps[unit][unit in chosen] for unit in units]
        place(scheme, pool, maps, real)
        (scheme / "config.json").write_text(
            json.dumps(document | {"quantization_config": quantization})
        )
    return base, sweep


def place(folder: Path, pool: Path, maps: list[dict[str, str]], real: bool) -> None:
    """Shards of the pool and their index in a checkpoint's folder."""
    whole = {name: file for each in maps for name, file in each.items()}
    for file in sorted(set(whole.values())):
        if real:
            shutil.copyfile(pool / file, folder / file)
        else:
            os.link(pool / file, folder / file)
    index = {"metadata": {}, "weight_map": whole}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


class Direct:
    """The child's channel without a process: what it is sent is given at once."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.found = ProbeRun()
        self.stages: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def receive(self) -> dict[str, Any]:
        return self._messages.pop(0)

    def send(self, kind: str, **fields: Any) -> None:
        _take(self.found, {"kind": kind, **fields})

    def sink(self, event: Any) -> None:
        kind = type(event).__name__
        now = time.perf_counter()
        if kind == "Started":
            self._started[event.stage] = now
        elif kind == "Finished":
            stage = event.stage.partition(" ")[0]
            self.stages[stage] = self.stages.get(stage, 0) + now - self._started[event.stage]


def row(what: str, ours: str, rival: str = "", ratio: str = "", target: str = "") -> None:
    print(f"| {what} | {ours} | {rival} | {ratio} | {target} |", flush=True)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def passes(model: Any, base: Path) -> tuple[float, float]:
    """Seconds of the first pass over the prompts, and of the best of three more."""
    encoder = Encoder(base, read_config(base), None)
    tokens = 8192 if model.device.type == "cuda" else 1024
    plan = batches(encoder.encode(default_prompts()), 64, tokens, encoder.pad)
    scorer = Scorer(model, losses=False)

    def one() -> None:
        for batch in plan:
            scorer.run(batch)

    first, *others = (seconds(one)[0] for _ in range(4))
    return first, min(others)


def full_size(base: Path, sweep: Path, device: str) -> None:
    """Wall and memory of a ten-scheme probe, against one load and eleven passes."""
    on = torch.device(device)
    prompts = default_prompts()

    def load() -> Any:
        return load_model(base, dtype="float32", device=on)

    cold, model = seconds(load)
    nbytes = sum(p.numel() * p.element_size() for p in model.parameters())
    first, one = passes(model, base)
    del model
    free(on)
    warm, model = seconds(load)
    del model
    free(on)
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = read_sweep(sweep, base=base, sink=silent, cancel=CancelToken())
    assert found.base is not None
    reference = found.base.checkpoint
    shards = [s for c in (reference, *found.schemes) for s in c.shards]
    hashing, digests = seconds(
        lambda: digest_shards(shards, Hashing(None), sink=silent, cancel=CancelToken())
    )
    options = ProbeOptions(tokenizer=str(base), device=device, dtype="float32")
    request = _request(reference, found.schemes, prompts, options)
    channel = Direct(dict(request), {"digests": dict(_known(shards, digests))})
    inside, _ = seconds(lambda: child.main(channel))  # type: ignore[arg-type]
    budget = warm + 11 * one
    row("base loaded, float32, cold / warm", f"{cold:.2f} / {warm:.2f} s")
    row("one pass over 64 prompts, first / best", f"{first:.2f} / {one:.3f} s")
    row("hashing all shards, beside the child", f"{hashing:.2f} s")
    row("ten-scheme probe, torch imported", f"{inside:.2f} s", f"load + 11 passes {budget:.2f} s",
        f"{inside / budget:.2f}", "2")  # fmt: skip
    stages = channel.stages
    row("of it: tensors / passes", f"{stages['load']:.2f} / {stages['probe']:.2f} s")
    if on.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
        row("peak GPU memory", f"{peak / 1e9:.2f} GB", f"model {nbytes / 1e9:.2f} GB",
            f"{peak / nbytes:.3f}", "1.1")  # fmt: skip
    free(on)
    command = [sys.executable, "-m", "ckptdiff", "probe", "--sweep", sweep, "--base", base]
    command += ["--device", device, "--dtype", "float32", "--json", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    whole, done = seconds(
        lambda: subprocess.run(command, env=environment, capture_output=True, check=False)
    )
    imports, _ = seconds(
        lambda: subprocess.run(
            [sys.executable, "-c", "import torch, accelerate, transformers as t; "
             "t.Qwen2_5_VLForConditionalGeneration; torch.zeros(1, device='" + device + "')"],
            check=True,
        )
    )  # fmt: skip
    row("the command, all in all", f"{whole:.2f} s", f"load + 11 passes + imports "
        f"{budget + imports:.2f} s", f"{whole / (budget + imports):.2f}", "2")  # fmt: skip
    if done.returncode:
        print(done.stderr.decode()[-2000:])
        return
    report = json.loads(done.stdout)
    print(f"\n{report['verdict']}\nnoise {report['noise']}, {report['device']}, {report['dtype']}")
    for result in report["results"]:
        print(f"  {result['scheme']}: KL {result['kl']['mean']:.4e}, top-1 {result['top1']:.0%}")
    again = {r["scheme"]: tuple(r["per_prompt"]["kl"]) for r in report["results"]}
    same = all(again[name] == scores.kl for name, scores in channel.found.scores.items())
    print(f"the same bits in both runs: {same}")


def images(base: Path, sweep: Path, folder: Path, device: str) -> None:
    """Image prompts through whichever processor loads here."""
    from PIL import Image

    folder.mkdir()
    lines = []
    for n in range(8):
        noise = torch.randint(0, 255, (140 + 28 * n, 196, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(folder / f"{n}.png")
        lines.append(json.dumps({"text": "What is in this picture?", "image": f"{n}.png"}))
    (folder / "images.jsonl").write_text("\n".join(lines))
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    loading = {"local_files_only": True}
    kind = type(_processor(base, read_config(base), tokenizer, loading)).__name__
    schemes = [sweep / "fp8_top10", sweep / "fp8_top100"]
    taken, report = seconds(
        lambda: ckptdiff.probe(
            base, schemes, prompts=folder / "images.jsonl", device=device, cache=False
        )
    )
    kl = ", ".join(f"{r.kl.mean:.3e}" for r in report.results)
    print(
        f"\n8 image prompts through {kind}: {report.prompts.tokens} tokens, KL {kl}, {taken:.1f} s"
    )


def agreement(device: str) -> None:
    """The samples on a CPU and on the device."""
    reports = [
        ckptdiff.probe(sweep=SAMPLES / "sweep", base=SAMPLES / "base", device=on, cache=False)
        for on in ("cpu", device)
    ]
    print("\nCPU against the device, samples/sweep:")
    for one, other in zip(*(report.results for report in reports), strict=True):
        a, b = one.per_prompt, other.per_prompt
        worst = max(abs(x - y) / max(x, 1e-9) for x, y in zip(a.kl, b.kl, strict=True))
        print(
            f"  {one.scheme}: KL {one.kl.mean:.6e} and {other.kl.mean:.6e}, "
            f"off by {abs(one.kl.mean / other.kl.mean - 1):.1e}, a prompt by {worst:.1e} at most"
        )
    print(f"noise floors {reports[0].noise.kl:.1e} and {reports[1].noise.kl:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm/ckptdiff-probe"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {options.device}")
    on = torch.device(options.device)
    try:
        made, (base, sweep) = seconds(lambda: build(options.dir, on, options.small, options.real))
        free(on)
        size = sum(s.identity.size for s in read_one(base).shards if s.identity)
        print(f"built in {made:.0f} s, base {size / 1e9:.2f} GB\n")
        full_size(base, sweep, options.device)
        images(base, sweep, options.dir / "images", options.device)
        agreement(options.device)
    finally:
        shutil.rmtree(options.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
