"""Killed or interrupted at any moment, a repair loses nothing and leaves nothing half-made.

Each run is a forked child that ends itself at the next of the operations that it does to the
directory of the schemes: audit hooks see them one by one, before they are done.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

import ckptdiff
from ckptdiff.api import verifying
from ckptdiff.api.composing import Planned
from ckptdiff.errors import UsageError
from ckptdiff.jobs.staging import reserved

SAMPLES = Path(__file__).parents[3] / "samples"
BASE = SAMPLES / "base"
TOP10 = "fp8_autoquant_all_layers_top10_captions"
DONOR = SAMPLES / "sweep" / TOP10.replace("top10", "top100")
WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock")
Hit = Callable[[], None]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process wrote is there without fsync, and reading back changes nothing:
    a hundred runs can do without both."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(verifying, "_verified", hashed)


def hashed(folder: Path, **_: object) -> str | None:
    """In the place of `check --deep`."""
    return ckptdiff.hash(folder, cache=False).fingerprint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with one scheme that needs repair."""
    path = tmp_path / "quantized"
    shutil.copytree(SAMPLES / "copied" / TOP10, path / TOP10)
    return path


def content(path: Path) -> dict[str, str]:
    """Every file of a directory by its digest."""
    return {
        str(file.relative_to(path)): xxhash.xxh3_128_hexdigest(file.read_bytes())
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def plan(root: Path, in_place: bool) -> Planned:
    return ckptdiff.plan_reexport(
        [root / TOP10], engine="compose", base=BASE, donors=[DONOR], in_place=in_place
    )


def in_child(root: Path, in_place: bool, number: int, hit: Hit) -> int | None:
    """Carry the plan out in a child that calls `hit` before operation `number`. The signal
    that ended it as a negative number, else its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if done == number:
                hit()

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in WATCHED and _below(root, arguments):
                step()

        for name in ("pwrite", "fsync"):
            setattr(os, name, _counted(getattr(os, name), step))
        planned = plan(root, in_place)
        sys.addaudithook(hook)
        report = ckptdiff.execute(planned, cache=False)
        os._exit(1 if report.failed else 0)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        os._exit(99)


def _below(root: Path, arguments: tuple[object, ...]) -> bool:
    texts = (os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike)))
    return any(text.startswith(str(root)) for text in texts) or not any(
        isinstance(a, (str, bytes, os.PathLike)) for a in arguments
    )


def _counted(real: Callable[..., object], step: Hit) -> Callable[..., object]:
    def counted(*arguments: object) -> object:
        step()
        return real(*arguments)

    return counted


def runs(root: Path, in_place: bool, hit: Hit, every: int = 1) -> Iterator[int | None]:
    """The exit of a run that is hit before its first operation, its second, and so on (or only
    before one of `every` so many) until it comes to its end."""
    fresh = root.with_name("fresh")
    root.rename(fresh)
    for number in range(1, 1000, every):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(fresh, root)
        code = in_child(root, in_place, number, hit)
        yield code
        if code == 0:
            return


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("in_place", [False, True], ids=["beside", "in place"])
def test_a_kill_at_any_operation(root: Path, in_place: bool) -> None:
    old, sources = content(root / TOP10), [content(BASE), content(DONOR)]
    target = root / (TOP10 if in_place else f"{TOP10}_v2")
    whole = _whole(root, in_place)
    seen = []
    # Beside, operations are those of in place but for the exchange at the end.
    every = 1 if in_place else 2
    for code in runs(root, in_place, kill, every):
        assert code in (0, -signal.SIGKILL)
        assert [content(BASE), content(DONOR)] == sources
        kept = [path for path in root.iterdir() if path.is_dir() and content(path) == old]
        assert len(kept) == 1, "the original is there, under its name, aside or hidden"
        seen.append(target.exists() and content(target) == whole)
        assert seen[-1] or not target.exists() or content(target) == old
        if code:
            _settle(root, in_place)
        names = {path.name for path in root.iterdir()}
        aside = {name for name in names if ".broken-" in name}
        assert names == {TOP10, target.name} | aside, "nothing is left of the killed run"
        assert bool(aside) == in_place and content(target) == whole
        assert content(root / f"{TOP10}.broken-1" if in_place else root / TOP10) == old
    assert len(seen) * every > 40 and seen[-1] and not seen[0]
    assert seen == sorted(seen), "once it has its name, it stays"


def _whole(root: Path, in_place: bool) -> dict[str, str]:
    """The files of a repair that nobody stopped, which the rules find nothing wrong with."""
    copy = root.with_name("undisturbed")
    shutil.copytree(root, copy)
    (outcome,) = ckptdiff.execute(plan(copy, in_place), cache=False).outcomes
    assert ckptdiff.check(outcome.target, base=BASE, deep=True).verdict.status == "pass"
    return content(Path(outcome.target))


def _settle(root: Path, in_place: bool) -> None:
    """Run again what was killed."""
    try:
        report = ckptdiff.execute(plan(root, in_place), cache=False)
    except UsageError as error:
        assert "is there already" in error.message
        with reserved(root / "another") as place:  # whoever works here next
            place.recover()
    else:
        assert [outcome.status for outcome in report.outcomes] == ["written"], report.outcomes


@pytest.mark.parametrize("in_place", [False, True], ids=["beside", "in place"])
def test_an_interrupt_at_any_operation(root: Path, in_place: bool) -> None:
    old, sources = content(root / TOP10), [content(BASE), content(DONOR)]
    target = root / (TOP10 if in_place else f"{TOP10}_v2")
    codes = []
    for code in runs(root, in_place, interrupt, every=2):
        codes.append(code)
        assert code in (0, 130)
        assert [content(BASE), content(DONOR)] == sources
        names = {path.name for path in root.iterdir()}
        # Nothing hidden, be it locks, journals or builds.
        assert names <= {TOP10, target.name, f"{TOP10}.broken-1"}, names
        if in_place and f"{TOP10}.broken-1" in names:
            assert content(root / f"{TOP10}.broken-1") == old != content(target)
        else:
            assert content(root / TOP10) == old
    assert codes.count(130) > 20
