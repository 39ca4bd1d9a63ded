"""A model on a bench, without a process: batches, and memory that runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from probes import BASE, scheme

from ckptdiff.analysis.probing import noise_row
from ckptdiff.errors import CapabilityError
from ckptdiff.formats.prompts import default_prompts
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime.bench import Bench, Loadable
from ckptdiff.runtime.contents import contents
from ckptdiff.runtime.filling import arrange
from ckptdiff.runtime.loading import read_scheme
from ckptdiff.runtime.memory import fitting_dtype
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.scoring import Batch
from ckptdiff.runtime.skeleton import read_config, skeleton


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


def test_a_batch_size_that_was_named_is_what_is_computed() -> None:
    """Only batches of no named size are cut by what suits a processor: 1,024 padded tokens."""
    for rows, sizes in ((None, [6, 4]), (10, [10]), (7, [7, 3])):
        made, encoder = bench(rows)
        prompts = encoder.encode([Prompt("b " * 150)] * 10)
        assert {prompt.length for prompt in prompts} == {151}
        made.refer_to(loadable(made, BASE), prompts, encoder.pad)
        assert [len(batch.numbers) for batch in made.batches] == sizes


def test_a_named_batch_size_gives_way_where_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, encoder = bench(10)
    run = made._scorer.run

    def failing(batch: Batch) -> object:
        if len(batch.numbers) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(batch)

    monkeypatch.setattr(made._scorer, "run", failing)
    made.refer_to(loadable(made, BASE), encoder.encode(default_prompts()[:10]), encoder.pad)
    assert [len(batch.numbers) for batch in made.batches] == [2] * 5


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
