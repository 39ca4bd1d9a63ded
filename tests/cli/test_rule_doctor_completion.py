"""The small commands: manuals, what is installed, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import run

import ckptdiff as package


def test_the_table_lists_every_rule() -> None:
    done = run("rule")
    assert done.code == 0
    rows = [line.split()[0] for line in done.text.splitlines() if not line.startswith(" ")]
    assert rows == [rule.code for rule in package.rule_table()]
    assert all(len(line) <= 80 for line in done.text.splitlines())


@pytest.mark.parametrize("code", [rule.code for rule in package.rule_table()])
def test_every_rule_has_a_page(code: str) -> None:
    done = run("rule", code.lower())
    assert done.code == 0
    assert done.text.startswith(code)


def test_a_rule_by_its_name_as_json() -> None:
    (rule,) = run("rule", "identical-weights", "--format", "json").report
    assert rule["code"] == "CK501"


def test_a_rule_that_there_is_not() -> None:
    done = run("rule", "CK999")
    assert done.code == 2
    assert "`ckptdiff rule` lists them all" in done.err


def test_doctor_names_versions() -> None:
    done = run("doctor", "--json")
    assert done.code == 0
    document = done.report
    versions = {part["name"]: part["version"] for part in document["capabilities"]}
    assert versions["numpy"] is not None
    assert document["processors"] == os.cpu_count()
    assert "numpy" in run("doctor").text


def test_doctor_is_not_misled_by_the_working_directory(tmp_path: Path) -> None:
    """A planted module must not run: the child has a directory of its own."""
    (tmp_path / "torch.py").write_text("open('planted', 'w')")
    (tmp_path / "json.py").write_text("open('planted', 'w')")
    subprocess.run(
        [Path(sys.executable).parent / "ckptdiff", "doctor"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert "_CKPTDIFF_COMPLETE" in done.text


def test_completion_completes_commands_and_options() -> None:
    program = str(Path(sys.executable).parent / "ckptdiff")

    def complete(*words: str) -> list[str]:
        environment = os.environ | {
            "_CKPTDIFF_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("ckptdiff", *words)),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run(
            [program], env=environment, capture_output=True, text=True, timeout=60
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("ch") == ["check"]
    assert "--no-hash" in complete("check", "--no")
