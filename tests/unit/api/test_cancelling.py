"""A check that nobody waits for any more ends at the next scheme, rule or finding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptdiff import api
from ckptdiff.analysis.evidence import gather
from ckptdiff.api import judging
from ckptdiff.errors import Cancelled
from ckptdiff.events import CancelToken, Event, Finished, silent
from ckptdiff.jobs.reading import read_sweep
from ckptdiff.rules.engine import judge


class Endless:
    """A rule with more to say than anybody reads; its first finding cancels."""

    code, needs = "CK999", ()

    def check(self, evidence: object) -> Iterator[Any]:
        Endless.token.cancel()
        yield from iter(lambda: None, 0)

    token: CancelToken


def test_between_findings_and_rules(sweep: Path) -> None:
    token = CancelToken()
    read = read_sweep(sweep, sink=silent, cancel=token)
    evidence = gather(read, None, token)
    Endless.token = token
    with pytest.raises(Cancelled):
        judge(evidence, [Endless], token)  # type: ignore[list-item]
    with pytest.raises(Cancelled):  # before any rule says anything
        judge(evidence, [object], token)  # type: ignore[list-item]
    with pytest.raises(Cancelled):
        gather(read, None, token)


@pytest.mark.parametrize("hashes", [False, True])
def test_a_check_whose_files_are_read(
    hashes: bool, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled when the last byte is read: nothing is judged."""
    token = CancelToken()

    def sink(event: Event) -> None:
        if isinstance(event, Finished) and event.stage == ("hash" if hashes else "read"):
            token.cancel()

    monkeypatch.setattr(judging, "verdict", lambda *a, **k: pytest.fail("it was judged"))
    with pytest.raises(Cancelled):
        api.check(sweep, hashes=hashes, cache=False, sink=sink, cancel=token)
