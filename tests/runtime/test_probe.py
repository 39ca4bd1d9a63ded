"""Probes of the samples: a real child process, real exports, and what it makes of bad ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import Result, environment, run
from PIL import Image
from safetensors.torch import load_file, save_file

import ckptdiff
from ckptdiff.analysis.ordering import natural
from ckptdiff.analysis.probing import noise_row
from ckptdiff.errors import Cancelled, CapabilityError, UsageError
from ckptdiff.events import Advanced, CancelToken, Event, Started
from ckptdiff.formats.prompts import default_prompts
from ckptdiff.jobs import probing as jobs
from ckptdiff.jobs.children import Child
from ckptdiff.records.probe import ProbeReport, Prompt
from ckptdiff.runtime import load_model
from ckptdiff.runtime.bench import Bench, Loadable
from ckptdiff.runtime.contents import contents
from ckptdiff.runtime.filling import arrange
from ckptdiff.runtime.loading import read_scheme
from ckptdiff.runtime.memory import fitting_dtype
from ckptdiff.runtime.metrics import compare
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.scoring import Batch
from ckptdiff.runtime.skeleton import read_config, skeleton

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
BASE, SWEEP, COPIED = SAMPLES / "base", SAMPLES / "sweep", SAMPLES / "copied"
NAME = "fp8_autoquant_all_layers_top{}_captions"
PERCENTS = (10, 30, 50, 100)
SECONDS = 240


def scheme(percent: int) -> Path:
    return SWEEP / NAME.format(percent)


@pytest.fixture(scope="module")
def healthy() -> ProbeReport:
    return ckptdiff.probe(sweep=SWEEP, base=BASE, device="cpu", perplexity=True)


def kl_of(report: ProbeReport) -> dict[str, float]:
    return {result.scheme: result.kl.mean for result in report.results}


# The samples


def test_kl_rises_with_coverage(healthy: ProbeReport) -> None:
    kl = kl_of(healthy)
    assert len(kl) == 5 and not healthy.unread
    rising = [kl[NAME.format(percent)] for percent in PERCENTS]
    assert rising == sorted(rising)
    (curve,) = healthy.curves
    assert curve.rises and curve.confidence is not None and curve.confidence > 0.9
    assert healthy.verdict.startswith("KL rises with coverage")
    assert healthy.dtype == "float32" and healthy.prompts.count == 64
    # Float32 resolves the smallest of them with room to spare.
    assert healthy.noise.kl is not None and 0 < healthy.noise.kl < 1e-6 * min(rising)
    assert not any(result.indistinguishable for result in healthy.results)


def test_the_numbers_are_those_of_whole_models(healthy: ProbeReport) -> None:
    """Each prompt alone through models that were loaded one by one."""
    encoder = Encoder(BASE, read_config(BASE), None)
    encoded = encoder.encode(default_prompts()[:12])
    options = {"dtype": "float32", "device": "cpu"}
    models = [load_model(path, **options) for path in (BASE, scheme(50))]
    result = next(r for r in healthy.results if r.scheme == NAME.format(50))
    losses = [0.0, 0.0]
    for number, prompt in enumerate(encoded):
        ids = prompt.sequences["input_ids"][None]
        with torch.inference_mode():
            a, b = (model(input_ids=ids).logits[0] for model in models)
        wanted = compare(a[-1:], b[-1:])
        assert result.per_prompt.kl[number] == pytest.approx(wanted.kl[0], rel=1e-3, abs=1e-10)
        assert result.per_prompt.mse[number] == pytest.approx(wanted.mse[0], rel=1e-3)
        assert result.per_prompt.top5[number] == wanted.top5[0]
        for n, logits in enumerate((a, b)):
            loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")
            losses[n] += float(loss)
    few = ckptdiff.probe(BASE, [scheme(50)], limit=12, device="cpu", perplexity=True)
    tokens = sum(prompt.length - 1 for prompt in encoded)
    assert few.perplexity == pytest.approx(float(torch.tensor(losses[0] / tokens).exp()), rel=1e-4)
    assert few.results[0].perplexity == pytest.approx(
        float(torch.tensor(losses[1] / tokens).exp()), rel=1e-4
    )


def test_copies_are_equal_and_said_to_be() -> None:
    report = ckptdiff.probe(sweep=COPIED, base=BASE, device="cpu", limit=16)
    first, *others = report.results
    assert [r.identical_to for r in others] == [first.scheme] * 3
    assert {r.cause for r in others} == {"identical weights"}
    assert {r.per_prompt for r in report.results} == {first.per_prompt}
    assert first.kl.mean > 1e-5
    assert report.verdict.endswith("are indistinguishable: their weights are identical")


def test_raw_is_garbage_and_the_tool_says_why(healthy: ProbeReport) -> None:
    report = ckptdiff.probe(sweep=SWEEP, base=BASE, device="cpu", raw=True)
    kl = kl_of(report)
    assert min(kl.values()) > 100 * max(kl_of(healthy).values())
    # Flat: a tenth of the layers does as much as all of them.
    assert max(kl.values()) < 2 * min(kl.values())
    assert report.verdict.startswith("these numbers are garbage: the codes of 49 modules were")
    assert "KL rises" not in report.verdict


def test_schemes_that_differ_in_scales_alone_are_equal_when_scales_are_ignored(
    tmp_path: Path,
) -> None:
    other = altered(tmp_path, {"model.layers.2.mlp.up_proj.weight_scale": 2.0})
    raw = ckptdiff.probe(BASE, [scheme(100), other], limit=8, device="cpu", raw=True)
    assert raw.results[1].cause == "scales ignored" or raw.results[0].cause == "scales ignored"
    right = ckptdiff.probe(BASE, [scheme(100), other], limit=8, device="cpu")
    assert not any(result.identical_to for result in right.results)


def test_static_activations_add_their_own_error(healthy: ProbeReport) -> None:
    report = ckptdiff.probe(sweep=SWEEP, base=BASE, device="cpu", activations="static")
    static, weights = kl_of(report), kl_of(healthy)
    assert all(static[name] > weights[name] for name in weights)
    assert report.curves[0].rises


# What a run is


def test_a_run_is_repeatable_to_the_bit(healthy: ProbeReport) -> None:
    again = ckptdiff.probe(sweep=SWEEP, base=BASE, device="cpu", perplexity=True, cache=False)
    assert ckptdiff.render(again, "json") == ckptdiff.render(healthy, "json")


def test_several_devices_share_the_schemes(healthy: ProbeReport) -> None:
    report = ckptdiff.probe(sweep=SWEEP, base=BASE, device="cpu,cpu", perplexity=True)
    assert report.device == "cpu, cpu"
    assert report.results == healthy.results


def test_progress_and_results_come_as_they_are_made() -> None:
    events: list[Event] = []
    counts: list[int] = []
    ckptdiff.probe(
        BASE,
        [scheme(10), scheme(100)],
        limit=8,
        device="cpu",
        sink=events.append,
        on_result=lambda report: counts.append(len(report.results)),
    )
    assert counts == [0, 1, 2]
    assert events[0] == Started("import", None, "files")
    assert Started(f"probe {BASE}", 8, "prompts") in events
    # The second scheme has the first one's layers: only what differs is read.
    loads = [event for event in events if isinstance(event, Started) and event.stage == "load"]
    sizes = [event.total or 0 for event in loads]
    assert len(sizes) == 3 and sizes[1] < sizes[2] < sizes[0] / 2
    assert all(isinstance(e, Advanced) for e in events if type(e).__name__ == "Advanced")


def test_cancelling_ends_a_probe() -> None:
    cancel = CancelToken()

    def stop(event: Event) -> None:
        cancel.cancel()

    with pytest.raises(Cancelled):
        ckptdiff.probe(BASE, [scheme(10)], device="cpu", sink=stop, cancel=cancel)


# A model on a bench, without a process


def bench(rows: int | None = None) -> tuple[Bench, Encoder]:
    made = Bench(
        BASE,
        torch.device("cpu"),
        dtype=None,
        static=False,
        losses=False,
        rows=rows,
        sink=lambda event: None,
    )
    return made, Encoder(BASE, read_config(BASE), None)


def loadable(made: Bench, path: Path) -> Loadable:
    found = read_scheme(path)
    return Loadable(path.name, found, arrange(made.filling.places, contents(found), str(path)))


def test_memory_that_runs_out_halves_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference is computed anew in the smaller batches before the scheme is."""
    made, encoder = bench()
    encoded = encoder.encode(default_prompts()[:12])
    made.refer_to(loadable(made, BASE), encoded, encoder.pad)
    assert [len(batch.numbers) for batch in made.batches] == [12]
    run, failures = made._scorer.run, iter([True, False, False, False, True])

    def failing(batch: object) -> object:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(made._scorer, "run", failing)
    found, _ = made.score(loadable(made, scheme(100)))
    assert max(len(batch.numbers) for batch in made.batches) == 3
    again, small = bench(rows=3)
    again.refer_to(loadable(again, BASE), encoded, small.pad)
    wanted, _ = again.score(loadable(again, scheme(100)))
    for ours, theirs in zip(found.kl, wanted.kl, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-9)


def test_memory_that_is_never_enough_ends_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    made, encoder = bench()

    def failing(batch: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(made._scorer, "run", failing)
    with pytest.raises(CapabilityError, match="too little memory on cpu for one prompt"):
        made.refer_to(loadable(made, BASE), encoder.encode([Prompt("a b c")]), encoder.pad)


def test_memory_that_runs_out_for_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: object, device: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ckptdiff.runtime.bench.allocate", failing)
    with pytest.raises(CapabilityError, match="too little memory on cpu for the model in float32"):
        bench()


def test_a_noise_floor_that_there_is_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt fits, and not beside itself: then the floor is not known, and no error."""
    made, encoder = bench()
    made.refer_to(loadable(made, BASE), encoder.encode([Prompt("a b c")]), encoder.pad)
    run = made._scorer.run

    def failing(batch: Batch) -> object:
        if len(batch.numbers) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(batch)

    monkeypatch.setattr(made._scorer, "run", failing)
    noise = made.noise()
    assert noise.batching == () and noise.precision is not None
    found = noise_row(noise.batching, noise.precision)
    assert found.batching is None and found.kl is not None


def test_a_model_that_does_not_fit_is_refused_with_an_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, cpu = skeleton(BASE), torch.device("cpu")
    assert fitting_dtype(model, cpu, None) == torch.float32
    monkeypatch.setattr("ckptdiff.runtime.memory.free_bytes", lambda device: 1_500_000)
    assert fitting_dtype(model, cpu, None) == torch.bfloat16
    with pytest.raises(CapabilityError, match=r"needs 2\.44 MB in float32, and 1\.50 MB are free"):
        fitting_dtype(model, cpu, torch.float32)
    monkeypatch.setattr("ckptdiff.runtime.memory.free_bytes", lambda device: 1_000_000)
    with pytest.raises(CapabilityError, match=r"needs 1\.22 MB in bfloat16"):
        fitting_dtype(model, cpu, None)


# Prompts


def test_images_go_through_the_processor_or_its_parts(tmp_path: Path) -> None:
    lines = []
    for number, color in enumerate([(250, 10, 10), (10, 10, 250), (0, 0, 0)]):
        Image.new("RGB", (48 + 16 * number, 64), color).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"text": "What is this?", "image": f"{number}.png"}))
    lines.append(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}))
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    report = ckptdiff.probe(BASE, [scheme(100)], prompts=tmp_path / "p.jsonl", device="cpu")
    assert report.prompts.images == 3 and report.prompts.source == str(tmp_path / "p.jsonl")
    images = report.results[0].per_prompt.kl[:3]
    assert all(0 < kl < 0.1 for kl in images) and len(set(images)) == 3
    # The model's own numbers, with positions that know of the image.
    encoder = Encoder(BASE, read_config(BASE), None)
    prompt = Prompt("What is this?", images=(str(tmp_path / "1.png"),))
    (encoded,) = encoder.encode([prompt])
    grid = encoded.media["image_grid_thw"][0]
    assert int((encoded.sequences["input_ids"] == 510).sum()) == int(grid.prod()) // 4
    inputs = {name: tensor[None] for name, tensor in encoded.sequences.items()}
    models = [load_model(p, dtype="float32", device="cpu") for p in (BASE, scheme(100))]
    with torch.inference_mode():
        a, b = (m(**inputs, **encoded.media).logits[0, -1:] for m in models)
    assert images[1] == pytest.approx(compare(a, b).kl[0], rel=1e-2)


def test_as_many_tokens_as_the_model_takes() -> None:
    """A prompt of a thousand words, cut to the last position that there is."""
    report = ckptdiff.probe(
        BASE, [scheme(10)], prompts=[Prompt("b " * 1100)], max_length=1024, device="cpu"
    )
    assert report.prompts.tokens == 1024


def test_a_directory_without_a_tokenizer_is_told_as_such(tmp_path: Path) -> None:
    """transformers makes one that knows no word, and says nothing."""
    shutil.copyfile(BASE / "config.json", tmp_path / "config.json")
    encoder = Encoder(tmp_path, read_config(tmp_path), None)
    with pytest.raises(UsageError, match="gives no token for prompt 1") as caught:
        encoder.encode([Prompt("some text")])
    assert "tokenizer files" in caught.value.next_step


def test_prompts_are_cut_and_counted() -> None:
    report = ckptdiff.probe(BASE, [scheme(10)], limit=10, max_length=3, device="cpu")
    assert (report.prompts.count, report.prompts.loaded, report.prompts.tokens) == (10, 64, 30)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([Prompt("")], "prompt 1 has no tokens"),
        ([Prompt("a"), Prompt(images=("/no/such.png",))], "the image /no/such.png of prompt 2"),
        (
            [Prompt("a"), Prompt("b " * 1100)],
            r"prompt 2 has [\d,]+ tokens, and the model takes 1,024",
        ),
        ([Prompt("half of a pair: \ud800")], "the tokenizer of .* does not take prompt 1"),
        ([], "there is no prompt"),
    ],
)
def test_prompts_that_cannot_be_used(prompts: list[Prompt], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ckptdiff.probe(BASE, [scheme(10)], prompts=prompts, device="cpu")


# What can be wrong


def altered(tmp_path: Path, factors: dict[str, float], name: str = "altered") -> Path:
    """A copy of top100 with some tensors multiplied."""
    path = tmp_path / name
    shutil.copytree(scheme(100), path)
    state = load_file(path / "model.safetensors")
    for tensor, factor in factors.items():
        state[tensor] = (state[tensor].float() * factor).to(state[tensor].dtype)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_nan_is_located_and_the_others_go_on(tmp_path: Path) -> None:
    bad = altered(tmp_path, {"model.layers.3.input_layernorm.weight": float("nan")})
    report = ckptdiff.probe(BASE, [bad, scheme(100)], limit=8, device="cpu")
    assert [result.scheme for result in report.results] == [str(scheme(100))]
    (unread,) = report.unread
    assert unread.path == str(bad)
    assert "the first module that makes them is model.language_model.layers.3.input_layernorm" in (
        unread.reason
    )


def test_a_scheme_that_changes_meanwhile_has_no_numbers(tmp_path: Path) -> None:
    """Weights of top100 under the name of top30, from the moment on that the child runs; a copy
    of what changes is not told to be the same."""
    shutil.copytree(scheme(30), tmp_path / "a_top30")
    shutil.copytree(scheme(30), tmp_path / "b_top30")

    def swap(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "noise":
            shutil.copyfile(scheme(100) / "model.safetensors", tmp_path / "new")
            (tmp_path / "new").replace(tmp_path / "a_top30/model.safetensors")

    others = [tmp_path / "a_top30", tmp_path / "b_top30", scheme(10)]
    report = ckptdiff.probe(BASE, others, limit=4, device="cpu", cache=False, sink=swap)
    assert {u.path: u.reason for u in report.unread} == {
        str(tmp_path / "a_top30"): "it changed while it was probed"
    }
    # By their paths: where the samples lie decides which is the first.
    kept = sorted(map(str, others[1:]), key=natural)
    assert [result.scheme for result in report.results] == kept


def test_a_reference_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")

    def touch(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "noise":
            os.utime(tmp_path / "base/model.safetensors")

    with pytest.raises(UsageError, match="changed while it was probed"):
        ckptdiff.probe(tmp_path / "base", [scheme(10)], limit=4, device="cpu", sink=touch)


def test_a_scheme_of_another_vocabulary_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "other"
    shutil.copytree(scheme(100), path)
    state = load_file(path / "model.safetensors")
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:500].clone()
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    report = ckptdiff.probe(BASE, [path, scheme(10)], limit=8, device="cpu")
    assert len(report.results) == 1
    assert report.unread[0].reason.endswith(
        "embed_tokens.weight holds [500, 96], and the model has [512, 96] there: the vocabularies "
        "differ"
    )


def test_the_tokenizer_is_borrowed_and_that_is_said(tmp_path: Path) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    for source, target in ((BASE, bare), (scheme(10), other)):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("tokenizer*", "chat*"))
    report = ckptdiff.probe(bare, [BASE], limit=4, device="cpu")
    assert report.notes == (f"the tokenizer is that of {BASE}: the reference has none",)
    assert report.results[0].kl.mean == 0 and report.results[0].indistinguishable
    with pytest.raises(UsageError, match="has no tokenizer, and no other checkpoint here has"):
        ckptdiff.probe(bare, [other], limit=4, device="cpu")


def command(*arguments: str | Path, **keywords: object) -> Result:
    return run("probe", *arguments, **keywords)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Importing torch and transformers takes a busy machine longer than other commands take."""
    monkeypatch.setattr("command.SECONDS", SECONDS)
    return None


def test_the_command_writes_every_format(tmp_path: Path) -> None:
    files = [tmp_path / f"out.{suffix}" for suffix in ("json", "md", "svg", "txt")]
    outputs = [word for file in files for word in ("-o", file)]
    done = command(BASE, scheme(10), scheme(50), "--device", "cpu", "--limit", "8", *outputs)
    assert done.code == 0 and done.text.startswith("KL ")
    assert json.loads(files[0].read_text())["schema"] == "ckptdiff.probe/1"
    assert "logit KL" in files[1].read_text() and files[2].read_text().startswith("<svg")
    assert files[3].read_text() == done.text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((BASE,), 2, "a reference and another checkpoint are needed"),
        ((BASE, SWEEP / "absent"), 2, "does not exist"),
        ((BASE, BASE), 2, "a checkpoint is named twice"),
        (("--sweep", SWEEP, BASE), 2, "--sweep takes all schemes below it"),
        ((BASE, scheme(10), "--raw", "--activations", "static"), 2, "raw ignores the scales"),
        ((BASE, scheme(10), "--device", "toaster"), 2, "there is no device 'toaster'"),
        ((BASE, scheme(10), "--device", "meta"), 2, "there is no device 'meta'"),
        ((BASE, scheme(10), "--device", ""), 2, "there is no device ''"),
        ((BASE, scheme(10), "-o", "/no/such/x.json"), 2, "/no/such is no directory"),
        ((BASE, scheme(10), "--device", "cuda:99"), 3, "cuda:99 is not there: torch sees"),
        ((BASE, scheme(10), "-o", BASE / "x.json"), 2, "lies inside the checkpoint"),
    ],
)
def test_usage_errors(arguments: tuple[str | Path, ...], code: int, message: str) -> None:
    done = command(*arguments)
    assert done.code == code and message in done.err


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    """Exit code 3, before anything is started."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'torch' else find(name, package)"
    )
    done = command(BASE, scheme(10), env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 3
    assert "the probe needs torch\npip install 'ckptdiff[probe]'" in done.err


def test_a_child_that_dies_is_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where its log is kept
    from ckptdiff.errors import ChildError

    init = Child.__init__

    def doomed(self: Child, *arguments: object, **keywords: object) -> None:
        init(self, *arguments, **keywords)  # type: ignore[arg-type]
        os.kill(self.pid, 9)

    monkeypatch.setattr(jobs.Child, "__init__", doomed)
    with pytest.raises(ChildError, match="was ended by SIGKILL") as caught:
        ckptdiff.probe(BASE, [scheme(10)], device="cpu")
    assert caught.value.exit_code == 4


def test_front_ends_import_no_torch() -> None:
    program = "import ckptdiff.api.probing, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)
