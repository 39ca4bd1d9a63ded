"""ckptdiff.toml: where it is found, what it decides, and what it cannot silence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import build
import pytest
from command import check, run

TOP10 = build.SweepSpec().scheme(10)


def test_settings_are_found_from_the_working_directory_upwards(bug: Path) -> None:
    (bug.parent / "ckptdiff.toml").write_text('fail_on = "never"')
    deeper = bug.parent / "a/b"
    deeper.mkdir(parents=True)
    result = check(bug, cwd=deeper)
    assert result.code == 0
    assert result.report["config"] == "../ckptdiff.toml"
    assert "settings: ../ckptdiff.toml" in run("check", bug, cwd=deeper).text
    (deeper.parent / "ckptdiff.toml").write_text("")  # the nearest one counts
    assert check(bug, cwd=deeper).code == 1


@pytest.mark.parametrize("where", [".", TOP10])
def test_settings_inside_root_silence_nothing(bug: Path, where: str) -> None:
    inside = bug / where / "ckptdiff.toml"
    inside.write_text('fail_on = "never"\n[[ignore]]\ncode = "CK"\nreason = "trust me"')
    for cwd, root in ((bug.parent, bug), (bug, Path()), (bug / TOP10, Path("..")),
                      (bug / TOP10, bug)):  # fmt: skip
        result = check(root, cwd=cwd)
        assert result.code == 1
        assert result.report["config"] is None
        assert result.report["ignored"] == []
    link = bug.parent / "link"
    link.symlink_to(bug)
    assert check(link, cwd=bug).code == 1
    # Named, it counts, and the report says so.
    result = check(bug, "--config", inside)
    assert result.code == 0
    assert result.report["config"] == inside.relative_to(bug).as_posix()


def test_settings_say_what_options_say(bug: Path) -> None:
    shutil.move(bug.parent / "base", bug.parent / "deep/inside/base")
    settings = bug.parent / "settings.toml"
    settings.write_text(
        f"""
base = "deep/inside/base"
fail_on = "warning"
require = ["base", "manifest"]
expect = 5
select = ["CK3", "CK5"]

[[ignore]]
code = "CK302"
schemes = ["{TOP10}"]
reason = "known"
"""
    )
    result = check(bug, "--config", settings, cwd=bug)
    report = result.report
    assert report["base"] == {"id": "../deep/inside/base", "found_by": "ckptdiff.toml"}
    assert result.unread == {".": "4 schemes found, 5 expected"}
    assert [(f["code"], f["schemes"], f["reason"]) for f in report["ignored"]] == [
        ("CK302", [TOP10], "known")
    ]
    assert result.code == 1
    # Options outweigh settings.
    assert check(bug, "--config", settings, "--expect", "4").unread == {}
    assert check(bug, "--config", settings, "--fail-on", "never").code == 2
    assert check(bug, "--config", settings, "--select", "CK501").codes == {"CK501"}


BAD_TOML = {
    "not-toml": "fail_on = ",
    "not-utf-8": b"fail_on = '\xff'",
    "unknown-key": "fial_on = 'never'",
    "unknown-table": "[rules]\nx = 1",
    "fail-on": "fail_on = 'sometimes'",
    "fail-on-type": "fail_on = ['error']",
    "base": "base = 1",
    "base-missing": "base = 'no/such/base'",
    "base-nul": 'base = "a\\u0000b"',
    "require": "require = ['tokenizer']",
    "require-type": "require = 'base'",
    "expect": "expect = 'ten'",
    "expect-float": "expect = 1.5",
    "expect-true": "expect = true",
    "expect-digits": "expect = " + "9" * 5_000,
    "select-type": "select = 'CK1'",
    "select-unknown": "select = ['CK999']",
    "ignore-type": "ignore = ['CK1']",
    "ignore-no-reason": "[[ignore]]\ncode = 'CK501'",
    "ignore-blank-reason": "[[ignore]]\ncode = 'CK501'\nreason = ' '",
    "ignore-no-code": "[[ignore]]\nreason = 'x'",
    "ignore-unknown-key": "[[ignore]]\ncode = 'CK501'\nreason = 'x'\nuntil = 'may'",
    "ignore-unknown-code": "[[ignore]]\ncode = 'CK999'\nreason = 'x'",
    "ignore-schemes": "[[ignore]]\ncode = 'CK501'\nreason = 'x'\nschemes = 'top10'",
    "nested": "a = " + "[" * 100_000,
    "nested-tables": "a." * 3_000 + "a = 1",
    "escape": 'fail_on = "\\u001b[2J"',
}


@pytest.mark.parametrize("case", BAD_TOML)
def test_bad_settings(sweep: Path, case: str) -> None:
    settings = sweep.parent / "ckptdiff.toml"
    content = BAD_TOML[case]
    settings.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run("check", sweep, cwd=sweep.parent)
    assert result.code == 2
    assert result.out == b""
    assert len(result.err) < 2_000
    assert len(result.err.splitlines()) >= 2, "there is no next step"


def test_settings_that_are_not_there(sweep: Path) -> None:
    assert run("check", sweep, "--config", sweep / "nothing.toml").code == 2
    assert run("check", sweep, "--config", sweep).code == 2
    fifo = sweep.parent / "ckptdiff.toml"
    os.mkfifo(fifo)
    assert run("check", sweep, cwd=sweep.parent).code == 2
    fifo.unlink()
    fifo.symlink_to("nowhere")
    assert run("check", sweep, cwd=sweep.parent).code == 2


@pytest.mark.parametrize("line", ['select = ["CK999"]', '[[ignore]]\ncode = "CK999"\nreason = "x"'])
def test_a_code_that_no_rule_has(sweep: Path, line: str) -> None:
    settings = sweep.parent / "ckptdiff.toml"
    settings.write_text(line)
    result = run("check", sweep, cwd=sweep.parent)
    assert result.code == 2
    assert '"CK999" is no rule' in result.err and str(settings) in result.err
