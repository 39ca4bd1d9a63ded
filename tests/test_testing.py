"""`assert_distinct`, the check that the founding bug report asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build import SweepSpec

from ckptdiff.errors import RootError
from ckptdiff.testing import assert_distinct

SPEC = SweepSpec()


def test_healthy_schemes_are_distinct(sweep: Path) -> None:
    assert_distinct(sweep)
    assert_distinct(sweep, strict=True)


def test_the_founding_bug_fails(bug: Path) -> None:
    with pytest.raises(AssertionError, match="CK501 4 schemes carry the same weights") as caught:
        assert_distinct(bug)
    assert SPEC.scheme(30) in str(caught.value)


def test_an_alias_fails_only_when_strict(sweep: Path) -> None:
    shutil.copytree(sweep / SPEC.scheme(30), sweep / f"{SPEC.scheme(30)}_v2")
    assert_distinct(sweep)
    with pytest.raises(AssertionError, match="CK502"):
        assert_distinct(sweep, strict=True)


def test_what_cannot_be_read_is_not_distinct(sweep: Path) -> None:
    path = sweep / SPEC.scheme(30) / "model.safetensors"
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(AssertionError, match="was not read"):
        assert_distinct(sweep)


def test_what_has_no_weights_is_not_distinct(sweep: Path) -> None:
    (sweep / SPEC.scheme(30) / "model.safetensors").unlink()
    with pytest.raises(AssertionError, match="was not compared"):
        assert_distinct(sweep)


def test_nothing_there_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(RootError):
        assert_distinct(tmp_path)


def test_settings_do_not_silence_it(bug: Path, tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.chdir(tmp_path)  # type: ignore[attr-defined]
    (tmp_path / "ckptdiff.toml").write_text('[[ignore]]\ncode = "CK501"\nreason = "x"\n')
    with pytest.raises(AssertionError):
        assert_distinct(bug)


def test_in_a_suite_of_somebody_else(bug: Path, tmp_path: Path) -> None:
    """The example of the README, run by pytest itself."""
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_models.py").write_text(
        "from ckptdiff.testing import assert_distinct\n\n\n"
        f"def test_weights():\n    assert_distinct({str(bug)!r})\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=suite, timeout=120)
    assert run.returncode == 1
    assert "schemes are not distinct" in run.stdout
    # The traceback ends where the user's own line is.
    assert "ckptdiff/testing.py" not in run.stdout
