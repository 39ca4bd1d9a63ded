"""Probes of the samples: a real child process, real exports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import environment
from probes import BASE, COPIED, NAME, PERCENTS, SWEEP, altered, scheme

import ckptdiff
from ckptdiff.errors import Cancelled, ChildError
from ckptdiff.events import Advanced, CancelToken, Event, Started
from ckptdiff.formats.prompts import default_prompts
from ckptdiff.jobs import probing as jobs
from ckptdiff.jobs.children import Child
from ckptdiff.records.probe import ProbeReport
from ckptdiff.runtime import load_model
from ckptdiff.runtime.metrics import compare
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.skeleton import read_config


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


def test_a_named_batch_size_is_repeatable_to_the_bit_too() -> None:
    """All 64 prompts at once, which is more than a processor is given unasked."""
    first, again = (
        ckptdiff.probe(BASE, [scheme(30)], device="cpu", batch_size=64, cache=False)
        for _ in range(2)
    )
    assert first.prompts.batches == 1
    assert ckptdiff.render(first, "json") == ckptdiff.render(again, "json")


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


def test_a_child_that_dies_is_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where its log is kept
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
