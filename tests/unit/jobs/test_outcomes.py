"""Outcomes that are remembered are the ones that were found."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ckptdiff.jobs.outcomes import Memory
from ckptdiff.records.proof import Outcome, Whole
from ckptdiff.sources.cache import Cache

OUTCOMES = [
    Outcome(status="proven", layout="fp8", code_dialects=("BF16 cpu",), codes=8, gain=0.001),
    Outcome(status="codes", layout="nvfp4", wrong=1, first=(3, 4), expected="0x1", actual="0x2"),
    Outcome(status="searched", whole=Whole(0.1, 0.0, math.inf)),
    Outcome(status="searched", whole=Whole(0.1, 0.09, 0.11, along=0.7, largest=0.1 + 2.0**-30)),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.status)
def test_another_run_recalls_what_one_has_found(tmp_path: Path, outcome: Outcome) -> None:
    signatures = {"module": b"all that it depends on"}
    Memory(Cache(tmp_path / "cache"), 0).remember(signatures, {"module": outcome}, {"module": ()})
    later = Memory(Cache(tmp_path / "cache"), 0)
    assert later.recall(signatures) == {"module": outcome}
    assert Memory(Cache(tmp_path / "cache"), 0, believe=False).recall(signatures) == {}
    assert later.recall({"module": b"something else"}) == {}
