"""When a file counts as settled, for the tests of what is remembered of it."""

from __future__ import annotations

import pytest

from ckptdiff.jobs import caching


@pytest.fixture
def only_mtime_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can set a file's ctime back, and no test should wait for two seconds."""
    monkeypatch.setattr(
        caching, "is_settled", lambda shard, now: now - shard.identity.mtime_ns > 2 * 10**9
    )
