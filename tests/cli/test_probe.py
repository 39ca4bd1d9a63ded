"""`ckptdiff probe`: formats, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from command import Result, run
from probes import BASE, SWEEP, own_models, scheme

from ckptdiff.cli.main import ckptdiff as group

SECONDS = 240  # importing torch and transformers takes a busy machine long


def command(*arguments: str | Path, **keywords: object) -> Result:
    return run("probe", *arguments, seconds=SECONDS, **keywords)  # type: ignore[arg-type]


def test_the_command_writes_every_format(tmp_path: Path) -> None:
    files = [tmp_path / f"out.{suffix}" for suffix in ("json", "md", "svg", "txt")]
    outputs = [word for file in files for word in ("-o", file)]
    done = command(BASE, scheme(10), scheme(50), "--device", "cpu", "--limit", "8", *outputs)
    assert done.code == 0 and done.text.startswith("KL ")
    assert json.loads(files[0].read_text())["schema"] == "ckptdiff.probe/1"
    assert "logit KL" in files[1].read_text() and files[2].read_text().startswith("<svg")
    assert files[3].read_text() == done.text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((BASE,), 2, "a reference and another checkpoint are needed"),
        ((BASE, SWEEP / "absent"), 2, "does not exist"),
        ((BASE, BASE), 2, "a checkpoint is named twice"),
        (("--sweep", SWEEP, BASE), 2, "--sweep takes all schemes below it"),
        ((BASE, scheme(10), "--raw", "--activations", "static"), 2, "raw ignores the scales"),
        ((BASE, scheme(10), "--device", "toaster"), 2, "there is no device 'toaster'"),
        ((BASE, scheme(10), "--device", "meta"), 2, "there is no device 'meta'"),
        ((BASE, scheme(10), "--device", ""), 2, "there is no device ''"),
        ((BASE, scheme(10), "-o", "/no/such/x.json"), 2, "/no/such is no directory"),
        ((BASE, scheme(10), "--device", "cuda:99"), 3, "cuda:99 is not there: torch sees"),
        ((BASE, scheme(10), "-o", BASE / "x.json"), 2, "lies inside the checkpoint"),
        ((BASE, scheme(10), "--json", "--format", "text"), 2, "--json and --format text: give one"),
    ],
)
def test_usage_errors(arguments: tuple[str | Path, ...], code: int, message: str) -> None:
    done = command(*arguments)
    assert done.code == code and message in done.err


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("--base", "check"),
        ("--format", "check"),
        ("--json", "check"),
        ("--no-cache", "check"),
        ("--jobs", "check"),
        ("--trust-remote-code", "reexport"),
    ],
)
def test_options_are_explained_as_those_of_other_commands(option: str, other: str) -> None:
    ours, theirs = (parameter(name, option) for name in ("probe", other))
    assert (ours.help, ours.metavar, ours.is_flag) == (theirs.help, theirs.metavar, theirs.is_flag)


def test_files_may_be_named_again_and_that_is_said() -> None:
    ours, theirs = (parameter(name, "--output") for name in ("probe", "check"))
    assert ours.help and theirs.help
    assert ours.help.partition(" too. ")[2] == theirs.help.partition(" too. ")[2] == "Repeatable."


def parameter(command: str, option: str) -> click.Option:
    found = group.get_command(click.Context(group), command)
    assert found is not None
    (named,) = (p for p in found.params if option in p.opts)
    assert isinstance(named, click.Option)
    return named


def test_own_code_is_run_when_that_is_asked_for(tmp_path: Path) -> None:
    reference, other, ran = own_models(tmp_path)
    few = (reference, other, "--limit", "2", "--device", "cpu")
    refused = command(*few)
    assert refused.code == 2 and not ran.exists()
    assert "code of its own, which is not run unasked" in " ".join(refused.err.split())
    assert "give --trust-remote-code to probe" in " ".join(refused.err.split())
    done = command(*few, "--trust-remote-code", "--json")
    assert done.code == 0 and ran.exists() and len(done.report["results"]) == 1


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    """Exit code 3, before anything is started."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'torch' else find(name, package)"
    )
    done = command(BASE, scheme(10), env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 3
    assert "the probe needs torch\npip install 'ckptdiff[probe]'" in done.err
