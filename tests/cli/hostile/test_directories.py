"""Directories that hold less than they should, lead elsewhere, or cannot be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import build
import pytest
from command import check, run
from forging import INDEX, SECOND, SINGLE, dangling, directory, fifo, loop


def test_scheme_without_weights(root: Path) -> None:
    (root / "one" / SINGLE).unlink()
    result = check(root)
    assert (result.code, result.codes) == (1, {"CK106"})


def test_index_that_names_nothing(sharded: Path) -> None:
    (sharded / "one" / INDEX).write_text('{"weight_map": {}}')
    result = check(sharded)
    assert result.code == 1
    assert "CK106" in result.codes


@pytest.mark.parametrize("command", ["check", "scan"])
@pytest.mark.parametrize("make", [None, directory, Path.touch, loop, dangling, fifo])
def test_root_that_is_no_sweep(
    tmp_path: Path, command: str, make: Callable[[Path], object] | None
) -> None:
    root = tmp_path / "root"
    if make:
        make(root)
    result = run(command, root)
    assert result.code == 2
    assert result.out == b""
    assert "ckptdiff:" in result.err
    assert len(result.err.splitlines()) >= 2, "there is no next step"


@pytest.mark.parametrize("command", ["check", "scan"])
def test_working_directory_that_is_gone(tmp_path: Path, command: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    result = run(command, prefix=("sh", "-c", script, "sh", str(gone)))
    assert result.code == 2
    assert "ckptdiff:" in result.err


def test_cycles_of_links(root: Path, tmp_path: Path) -> None:
    (root / "one/again").symlink_to(root)
    (root / "up").symlink_to("..")
    (root / "left").mkdir()
    (root / "right").mkdir()
    (root / "left/link").symlink_to(root / "right")
    (root / "right/link").symlink_to(root / "left")
    result = check(root)
    assert result.code == 0
    assert result.report["passed_over"]


def test_links_that_lead_nowhere_are_not_passed_in_silence(root: Path) -> None:
    # Schemes on a disk that is not mounted look like this.
    dangling(root / "two")
    loop(root / "three")
    result = check(root)
    assert result.code == 2
    assert set(result.unread) == {"two", "three"}
    assert not result.report["verdict"]["complete"]


def test_thousands_of_directories(root: Path) -> None:
    for number in range(3_000):
        (root / f"empty{number}").mkdir()
    result = check(root)
    assert result.code == 0
    assert [row["id"] for row in result.report["schemes"]] == ["one"]


def test_thousands_of_schemes(tmp_path: Path) -> None:
    for number in range(2_000):
        scheme = tmp_path / f"root/s{number}"
        scheme.mkdir(parents=True)
        build.write_shard(scheme / SINGLE, {"a.weight": build.Spec("BF16", (4, 4), scheme.name)})
    result = run("check", tmp_path / "root")
    assert result.code == 0
    assert "2,000 schemes" in result.text


def test_scheme_that_is_a_link_to_another(root: Path) -> None:
    (root / "two").symlink_to("one")
    result = check(root)
    assert result.code == 0
    assert result.codes == set()
    assert "CK502" in result.infos
    (group,) = result.report["identity"]
    assert group["schemes"] == ["one", "two"]


def test_founding_bug_by_links(sweep: Path) -> None:
    low, high = (sweep / build.SweepSpec().scheme(percent) for percent in (10, 100))
    (low / SINGLE).unlink()
    (low / SINGLE).symlink_to(high / SINGLE)
    result = check(sweep)
    assert result.code == 1
    assert "CK501" in result.codes_of(low.name)


# Permissions, judged without root's rights


TOP10, TOP100 = (build.SweepSpec().scheme(percent) for percent in (10, 100))


@pytest.mark.parametrize(
    "place",
    [
        "",
        SINGLE,
        "config.json",
        "hf_quant_config.json",
        "layer-sensitivity",
        f"layer-sensitivity/{TOP10}_coverage_from_baseline.json",
        f"layer-sensitivity/{build.BASELINE}_quant_manifest.json",
    ],
)
def test_unreadable_among_readable(sweep: Path, place: str) -> None:
    (sweep / TOP10 / place).chmod(0)
    result = check(sweep, obedient=True)
    verdict = result.report["verdict"]
    assert result.code == 2
    assert result.unread == {f"{TOP10}/{place}".rstrip("/"): "permission denied"}
    assert "CK307" not in result.infos
    assert result.codes == set()
    assert (verdict["status"], verdict["complete"]) == ("pass", False)
    assert TOP10 not in verdict["safe"]
    assert len(verdict["safe"]) == 3
    assert "not the whole truth" in verdict["sentence"]
    scanned = run("scan", sweep, obedient=True)
    assert scanned.code == 2
    assert "permission denied" in " ".join(scanned.text.split())


def test_a_finding_outweighs_what_is_unread(sweep: Path) -> None:
    build.copy_weights(sweep, 100, (50,))
    (sweep / TOP10).chmod(0)
    result = check(sweep, obedient=True)
    assert result.code == 1
    assert "CK501" in result.codes
    assert not result.report["verdict"]["complete"]
    assert check(sweep, "--fail-on", "never", obedient=True).code == 2


def test_unreadable_root(sweep: Path) -> None:
    sweep.chmod(0)
    for command in ("check", "scan"):
        result = run(command, sweep, obedient=True)
        assert result.code == 2
        assert "permission denied" in (result.text + result.err).lower()


def test_root_behind_an_unreadable_directory(sweep: Path) -> None:
    sweep.chmod(0)
    for command in ("check", "scan"):
        assert run(command, sweep / TOP10, obedient=True).code == 2


def test_killed_export_with_an_unreadable_manifest(sweep: Path) -> None:
    # Only the manifest tells that this directory is a scheme at all.
    for name in (SINGLE, "hf_quant_config.json"):
        (sweep / TOP10 / name).unlink()
    (sweep / TOP10 / "layer-sensitivity").chmod(0)
    result = check(sweep, obedient=True)
    assert result.code in (1, 2)
    assert f"{TOP10}/layer-sensitivity" in result.unread


def test_full_precision_scheme_with_an_unreadable_shard(sweep: Path) -> None:
    # It could be taken for the base, and then nobody would hear of the shard.
    base = sweep / "base"
    (sweep.parent / "base").rename(base)
    (base / SINGLE).unlink()
    (base / "config.json").rename(base / "kept")
    build.write_weights(base, build.base_tensors(), shards=2)
    (base / "kept").rename(base / "config.json")
    (base / SECOND).chmod(0)
    result = check(sweep, obedient=True)
    assert result.code == 2
    assert list(result.unread) == [f"base/{SECOND}"]


def test_settings_that_cannot_be_read(sweep: Path) -> None:
    settings = sweep.parent / "ckptdiff.toml"
    settings.write_text('fail_on = "never"')
    settings.chmod(0)
    result = run("check", sweep, obedient=True, cwd=sweep.parent)
    assert result.code == 2
    assert "permission denied" in result.err
