"""Runs the command line as users do: a process of its own, watched for what must never be."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 30  # a run that takes longer hangs
COMMAND = (sys.executable, "-m", "ckptdiff")
# prctl's PR_CAPBSET_DROP, and the capabilities by which root opens every file.
_DROP, _DAC_OVERRIDE, _DAC_READ_SEARCH = 24, 1, 2

# Whatever moves a cursor, reverses a line or is no character at all.
_DANGEROUS = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def codes(self) -> set[str]:
        """The codes of all errors and warnings."""
        return {f["code"] for f in self.report["findings"] if f["severity"] != "info"}

    @property
    def infos(self) -> set[str]:
        """The codes of findings that only inform: healthy exports have some."""
        return {f["code"] for f in self.report["findings"] if f["severity"] == "info"}

    def codes_of(self, scheme: str) -> set[str]:
        """The codes of the errors and warnings about one scheme."""
        findings = [f for f in self.report["findings"] if f["severity"] != "info"]
        return {f["code"] for f in findings if scheme in f["schemes"]}

    @property
    def unread(self) -> dict[str, str]:
        """path -> reason of everything that was not read."""
        return {item["path"]: item["reason"] for item in self.report["unread"]}

    def scheme(self, id: str) -> dict[str, Any]:
        """The row of one scheme."""
        (row,) = (row for row in self.report["schemes"] if row["id"] == id)
        assert isinstance(row, dict)
        return row


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without what changes the output, and with `extra`."""
    dropped = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "PYTHONUNBUFFERED")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **(extra or {})}


def run(
    *arguments: str | bytes | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    obedient: bool = False,
    prefix: Sequence[str] = (),
    seconds: float = SECONDS,
) -> Result:
    """`ckptdiff ARGUMENTS…`. Fails on a hang, a traceback or raw control characters.

    `obedient` runs without root's right to open every file. `prefix` is a command that runs
    the command.
    """
    done = subprocess.run(
        [*prefix, *COMMAND, *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
        preexec_fn=obey_permissions if obedient else None,
    )
    err = done.stderr.decode()
    assert "Traceback" not in err, err
    assert "defect of ckptdiff" not in err, err
    harmless(done.stdout.decode())
    harmless(err)
    return Result(done.returncode, done.stdout, err)


def obey_permissions() -> None:
    """Let the program about to be started be refused what modes refuse, even to root."""
    if os.geteuid() == 0:
        for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(_DROP, capability, 0, 0, 0) == 0


def check(root: Path, *arguments: str | Path, **keywords: Any) -> Result:
    """`ckptdiff check ROOT --json`."""
    return run("check", root, "--json", *arguments, **keywords)


def harmless(text: str) -> None:
    """Assert that `text` does nothing to a terminal but print lines."""
    found = {c for c in text if c != "\n" and unicodedata.category(c) in _DANGEROUS}
    assert not found, f"raw {sorted(map(ascii, found))}"
