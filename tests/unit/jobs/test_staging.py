"""Directories come into being whole, and one that is replaced is never lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ckptdiff.errors import UsageError
from ckptdiff.jobs import staging
from ckptdiff.jobs.staging import Place, reserved

Rename = Callable[[Path, Path, int], None]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory that is replaced."""
    path = tmp_path / "top10"
    fill(path, "old")
    return path


def fill(path: Path, content: str) -> None:
    path.mkdir(exist_ok=True)
    (path / "file").write_text(content)


def content(path: Path) -> str:
    return (path / "file").read_text()


def names(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def no_exchange(patch: pytest.MonkeyPatch) -> None:
    """A file system, or a kernel, without RENAME_EXCHANGE."""
    real = staging._rename

    def rename(source: Path, target: Path, flags: int) -> None:
        if flags == staging._EXCHANGE:
            raise OSError(errno.EINVAL, "not here")
        real(source, target, flags)

    patch.setattr(staging, "_rename", rename)


def test_a_new_directory_gets_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "top10"
    with reserved(target) as place, place.build() as folder:
        fill(folder, "new")
        assert folder.parent == tmp_path and folder.name.startswith(".top10.ckptdiff-")
        assert not target.exists()
        place.publish(folder)
    assert content(target) == "new"
    assert names(target) == {"top10"}
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "top10"
    with (
        pytest.raises(KeyboardInterrupt),
        reserved(target) as place,
        place.build() as folder,
    ):
        fill(folder, "half")
        raise KeyboardInterrupt
    assert names(target) == set()


def test_a_name_that_was_taken_meanwhile_is_kept(target: Path) -> None:
    with (
        pytest.raises(UsageError, match="came into being"),
        reserved(target) as place,
        place.build() as folder,
    ):
        fill(folder, "new")
        place.publish(folder)
    assert content(target) == "old" and names(target) == {"top10"}


def test_an_empty_directory_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "top10").mkdir()
    with pytest.raises(UsageError), reserved(tmp_path / "top10") as place, place.build() as folder:
        place.publish(folder)
    assert list((tmp_path / "top10").iterdir()) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_the_replaced_one_is_set_aside(
    target: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        no_exchange(monkeypatch)
    fill(target.with_name("top10.broken-1"), "older")
    with reserved(target) as place, place.build() as folder:
        fill(folder, "new")
        aside = place.replace(folder)
    assert aside.name == "top10.broken-2"
    assert content(target) == "new" and content(aside) == "old"
    assert content(target.with_name("top10.broken-1")) == "older"
    assert names(target) == {"top10", "top10.broken-1", "top10.broken-2"}


def test_only_one_may_have_a_target(target: Path) -> None:
    with reserved(target), pytest.raises(UsageError, match="another process"), reserved(target):
        pass
    with reserved(target), reserved(target.with_name("top30")):
        pass
    assert names(target) == {"top10"}


def test_an_unfinished_build_is_removed_by_the_next_run(target: Path) -> None:
    fill(target.with_name(".top10.ckptdiff-abcd_123"), "half")
    fill(target.with_name(".top10.ckptdiff-note"), "somebody's own")
    fill(target.with_name(".top100.ckptdiff-abcd_123"), "another's")
    with reserved(target) as place:
        (what,) = place.recover()
    assert ".top10.ckptdiff-abcd_123" in what
    assert names(target) == {"top10", ".top10.ckptdiff-note", ".top100.ckptdiff-abcd_123"}


def test_a_lock_that_nobody_holds_is_removed_by_whoever_comes_next(target: Path) -> None:
    (target.parent / ".top30.ckptdiff.lock").touch()
    with reserved(target.with_name("top50")), reserved(target) as place:
        place.recover()
        assert names(target) == {"top10", ".top10.ckptdiff.lock", ".top50.ckptdiff.lock"}
    assert names(target) == {"top10"}


class Killed(BaseException):
    """A kill, as far as a test can have one in its own process."""


def kill_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """From step number `steps` on, nothing is carried out any more."""
    count = iter(range(1000))

    def guarded(real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            if next(count) >= steps:
                raise Killed
            return real(*arguments, **options)

        return step

    for name in ("replace", "rename", "unlink"):
        patch.setattr(Path, name, guarded(getattr(Path, name)))
    for name in ("_rename", "sync_directory"):
        patch.setattr(staging, name, guarded(getattr(staging, name)))


def states(target: Path, exchange: bool) -> Iterator[int]:
    """Replace `target`, killed after 0, 1, 2, … steps, until it is not killed any more."""
    for steps in range(100):
        for path in target.parent.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        fill(target, "old")
        with pytest.MonkeyPatch.context() as patch:
            if not exchange:
                no_exchange(patch)
            place = Place(target)
            folder = target.with_name(".top10.ckptdiff-abcd_123")
            fill(folder, "new")
            kill_after(steps, patch)
            killed = True
            with suppress(Killed):
                place.replace(folder)
                killed = False
        yield steps
        if not killed:
            return


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_step_of_a_replacement_loses_nothing(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "top10"
    seen = set()
    last = -1
    for step in states(target, exchange):
        last = step
        everything = {content(path) for path in tmp_path.iterdir() if path.is_dir()}
        assert "old" in everything
        half = not target.exists()
        assert not (half and exchange)
        if not exchange:
            no_exchange(monkeypatch)
        with reserved(target) as place:
            told = place.recover()
        # Either it was finished, or nothing had happened.
        if content(target) == "new":
            assert content(target.with_name("top10.broken-1")) == "old"
            assert names(target) == {"top10", "top10.broken-1"}
        else:
            assert content(target) == "old" and names(target) == {"top10"}
        seen.add((content(target), half))
        with reserved(target) as place:
            assert place.recover() == ()
        assert told or content(target) == "new"
    assert last > 4
    assert seen == {("old", False), ("new", False)} | (set() if exchange else {("new", True)})


BUILD, ASIDE = ".top10.ckptdiff-abcd_123", "top10.broken-1"


def write_journal(place: Place, **changes: object) -> None:
    journal = {"new": [1, 2], "old": [1, 3], "build": BUILD, "aside": ASIDE} | changes
    place._journal.write_text(json.dumps(journal))


def test_a_journal_that_fits_nothing_is_told(target: Path) -> None:
    place = Place(target)
    write_journal(place)
    with reserved(target), pytest.raises(UsageError, match="neither"):
        place.recover()
    for damaged in ("{", "[" * 50_000, "[]", "\udcff"):
        place._journal.write_bytes(damaged.encode("utf-8", "surrogateescape"))
        with reserved(target), pytest.raises(UsageError, match="cannot be understood"):
            place.recover()
    place._journal.unlink()
    os.mkfifo(place._journal)  # reading it would wait for ever
    with reserved(target), pytest.raises(UsageError, match="cannot be understood"):
        place.recover()
    assert content(target) == "old"


@pytest.mark.parametrize("name", ["..", "../base", "/base", "top30", "a\0b", "", 5, None])
@pytest.mark.parametrize("key", ["build", "aside"])
def test_a_forged_journal_moves_nothing(target: Path, key: str, name: object) -> None:
    """Whatever it names, only what a repair of this target makes is renamed."""
    other = target.with_name("top30")
    fill(other, "another scheme")
    place = Place(target)
    nodes = {"new": staging._node(other), "old": staging._node(target)}
    for given in (nodes, {"new": nodes["old"], "old": nodes["new"]}):
        write_journal(place, **given, **{"build": BUILD, "aside": ASIDE, key: name})
        with reserved(target), pytest.raises(UsageError, match="cannot be understood"):
            place.recover()
    place._journal.unlink()
    assert content(target) == "old" and content(other) == "another scheme"
    assert names(target) == {"top10", "top30"}


def test_what_came_into_the_way_is_not_written_over(target: Path) -> None:
    """An empty directory under the name that the journal chose for the original."""
    place = Place(target)
    fill(target.with_name(BUILD), "old")
    target.with_name(ASIDE).mkdir()
    nodes = {"new": staging._node(target), "old": staging._node(target.with_name(BUILD))}
    write_journal(place, **nodes)
    with reserved(target), pytest.raises(FileExistsError):
        place.recover()
    assert content(target.with_name(BUILD)) == "old"


def test_locks_of_others_are_left_to_them(target: Path) -> None:
    """One that cannot be opened, as another user's, keeps nobody from working beside it."""
    lock = target.with_name(".top30.ckptdiff.lock")
    lock.mkdir()
    with reserved(target) as place:
        assert place.recover() == ()
    assert lock.is_dir()
    refused = pytest.raises(UsageError, match=r"top30\.ckptdiff\.lock cannot be opened")
    with refused, reserved(target.with_name("top30")):
        pass


def test_a_replacement_is_as_private_as_what_it_replaces(target: Path) -> None:
    target.chmod(0o750)
    target.parent.chmod(0o2755)  # a group that new directories inherit
    with reserved(target) as place, place.build() as folder:
        assert folder.stat().st_mode & 0o7777 == 0o2750
    with reserved(target.with_name("top30")) as place, place.build() as folder:
        assert folder.stat().st_mode & 0o7777 == 0o2777 & ~umask()


def test_without_renameat2_a_taken_name_is_kept(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.ctypes, "CDLL", lambda *_, **__: object())
    folder = target.with_name("new")
    fill(folder, "new")
    with pytest.raises(FileExistsError):
        staging._rename(folder, target, staging._NOREPLACE)
    staging._rename(folder, target.with_name("top30"), staging._NOREPLACE)
    assert content(target.with_name("top30")) == "new"
    with pytest.raises(OSError, match="not implemented"):
        staging._rename(folder, target, staging._EXCHANGE)
