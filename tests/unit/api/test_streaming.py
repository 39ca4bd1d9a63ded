"""`check` says while it hashes which schemes are the same, and never takes a letter back."""

from __future__ import annotations

import json
from pathlib import Path

import build
import pytest

from ckptdiff import api
from ckptdiff.jobs import caching
from ckptdiff.records.report import CheckReport, IdentityRow


def heard(root: Path, **options: object) -> tuple[list[dict[str, str]], CheckReport]:
    """scheme -> letter, as it was said each time; and the report."""
    said: list[tuple[IdentityRow, ...]] = []
    report = api.check(root, on_identity=said.append, **options)  # type: ignore[arg-type]
    assert said[-1] == report.identity
    return [{id: row.letter for row in rows for id in row.schemes} for rows in said], report


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("copied", [(), (10, 30), (10, 30, 50)])
def test_letters_come_one_by_one_and_stay(sweep: Path, jobs: int, copied: tuple[int, ...]) -> None:
    if copied:
        build.copy_weights(sweep, 100, copied)
    said, report = heard(sweep, jobs=jobs, cache=False)
    known = [len(letters) for letters in said]
    assert known == sorted(set(known))
    assert known[-1] == 4
    if jobs == 1:  # threads may finish the first scheme last, and then all letters come at once
        assert known == [1, 2, 3, 4]
    for letters in said:
        assert letters.items() <= said[-1].items()
    silent = api.check(sweep, jobs=jobs, cache=False)
    assert json.loads(api.render(report, "json")) == json.loads(api.render(silent, "json"))


def test_a_scheme_that_cannot_be_read_has_no_letter(sweep: Path) -> None:
    lost = sweep / build.SweepSpec().scheme(30)
    shard = next(lost.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:9])
    said, _ = heard(sweep, cache=False)
    assert lost.name not in said[-1]
    assert len(said[-1]) == 3


def test_what_is_remembered_is_said_too(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "is_settled", lambda shard, now: True)
    first, _ = heard(sweep)
    again, _ = heard(sweep)
    assert again[-1] == first[-1]
