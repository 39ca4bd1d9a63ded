"""Reports of a probe that grows, with a child that only says what a real one would."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import build
import pytest

from ckptdiff import api
from ckptdiff.analysis import bootstrap
from ckptdiff.analysis.ordering import natural
from ckptdiff.api import probe_reports
from ckptdiff.jobs import probing as jobs
from ckptdiff.records.probe import ProbeReport

COLUMNS = ("mse", "kl", "reverse_kl", "js", "top1", "top5")
Message = Mapping[str, Any]


class Stub:
    """Stands in for the child, with numbers of its own; `copies`: all schemes are the first."""

    copies = False

    def __init__(self, *_: object, **__: object) -> None:
        self._request: Message = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def send(self, message: Message) -> None:
        if "others" in message:
            self._request = message

    def messages(self, *_: object) -> Iterator[Message]:
        count = len(self._request["prompts"])
        noise = {"batching": [1e-12], "precision": [1e-12]}
        yield {"kind": "reference", "device": "cpu", "dtype": "float32", "batches": 1,
               "tokens": count, "perplexity": None, "noise": noise}  # fmt: skip
        first, *rest = (other["id"] for other in self._request["others"])
        yield self._scores(first, count)
        for id in rest:
            same = {"kind": "same", "scheme": id, "as_": first}
            yield same if self.copies else self._scores(id, count)

    @staticmethod
    def _scores(id: str, count: int) -> Message:
        draws = random.Random(id)
        columns = {name: [draws.random() for _ in range(count)] for name in COLUMNS}
        return {"kind": "scores", "scheme": id, "perplexity": None, "scores": columns}


@pytest.fixture(params=[False, True], ids=["different", "copies"])
def stub(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(jobs, "Child", Stub)
    monkeypatch.setattr(Stub, "copies", request.param)


@pytest.fixture
def sweep_of(tmp_path: Path) -> Callable[[int], Path]:
    """Makes the ROOT of a sweep of so many schemes, 100 at most, with its base beside it."""

    def make(count: int) -> Path:
        percents = tuple(100 * n // count for n in range(1, count + 1))
        root = build.write_sweep(tmp_path / str(count), build.SweepSpec(percents=percents))
        (root.parent / "base/tokenizer.json").write_text("{}")
        return root

    return make


def probe(
    sweep: Path, on_result: Callable[[ProbeReport], None] | None = None, limit: int = 4
) -> ProbeReport:
    """All schemes of a sweep, the last by name first."""
    others = sorted(sweep.iterdir(), key=lambda path: natural(path.name), reverse=True)
    base = sweep.parent / "base"
    return api.probe(base, others, limit=limit, device="cpu", cache=False, on_result=on_result)


@pytest.mark.usefixtures("stub")
def test_a_report_that_grows_costs_what_its_schemes_do(
    sweep_of: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws of the bootstrap and looks at a checkpoint, all reports together."""
    calls: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def function(*arguments: Any) -> Any:
            calls[name] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, function)

    counted(bootstrap, "means")
    counted(probe_reports, "scheme_evidence")
    heard: list[ProbeReport] = []
    probe(sweep_of(32), heard.append)
    assert len(heard) == 33
    # Four intervals a scheme in part and whole, those of the first once more for each copy.
    assert 32 <= calls["means"] <= 20 * 32
    # Before there are digests, and with them.
    assert 32 <= calls["scheme_evidence"] <= 2 * 32


@pytest.mark.usefixtures("stub")
def test_parts_say_what_the_whole_says(sweep_of: Callable[[int], Path]) -> None:
    """Of the schemes that are there by then, but for whether KL rises."""
    heard: list[ProbeReport] = []
    whole = probe(sweep_of(6), heard.append)
    assert [len(part.results) for part in heard] == list(range(7))
    rows = {row.scheme: row for row in whole.results}
    for part in heard:
        assert part.results == tuple(rows[row.scheme] for row in part.results)
        assert all(curve.rises is None for curve in part.curves)
        assert "rise" not in part.verdict
    assert heard[-1].results == whole.results
    assert [c.schemes for c in heard[-1].curves] == [c.schemes for c in whole.curves]
    if Stub.copies:
        first = whole.results[0]
        assert first.scheme.endswith("top16_coco2017")
        assert {row.identical_to for row in whole.results[1:]} == {first.scheme}
        assert "are indistinguishable" in heard[2].verdict
    else:
        assert whole.curves[0].rises is not None and "rise" in whole.verdict


@pytest.mark.usefixtures("stub")
def test_one_prompt_has_no_interval_and_the_report_says_so(
    sweep_of: Callable[[int], Path],
) -> None:
    alone, several = (probe(sweep_of(limit), limit=limit) for limit in (1, 2))
    assert alone.results[0].kl.lo == alone.results[0].kl.hi
    (note,) = alone.notes
    assert "one prompt" in note and several.notes == ()
    text = api.render(alone, "text").decode()
    assert "1 token, 1 batch\n" in text and "one prompt" in text
