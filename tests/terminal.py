"""A real terminal for tests: tmux, keys sent to it, its screen read until it shows something."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

SECONDS = 60
ENDED = "the command ended with"


class Terminal:
    """A tmux server of its own with one window, in which `ckptdiff ARGUMENTS…` runs."""

    def __init__(
        self,
        *arguments: str | Path,
        size: tuple[int, int] = (80, 24),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix` is a command that runs the command."""
        self._name = f"ckptdiff-{uuid.uuid4().hex[:12]}"
        command = shlex.join([*prefix, sys.executable, "-m", "ckptdiff", *map(str, arguments)])
        # What it leaves on the screen stays to be read.
        script = f"{command}; echo {ENDED} $?; exec cat"
        width, height = map(str, size)
        self._tmux("new-session", "-d", "-s", "t", "-x", width, "-y", height,
                   *(["-c", str(cwd)] if cwd else []), script, env=env)  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*self._command, "kill-server"], capture_output=True, check=False)

    @property
    def _command(self) -> list[str]:
        return ["tmux", "-L", self._name, "-f", os.devnull]

    def _tmux(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        # A size that is in the environment would count for more than the window's.
        kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        environment = {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})}
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            env=environment,
            timeout=SECONDS,
            check=True,
        )
        return done.stdout.decode()

    def child(self) -> int:
        """The process that the window's shell runs."""
        shell = self._tmux("display-message", "-p", "-t", "t", "#{pane_pid}").strip()
        return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def screen(self) -> str:
        """What is on the screen now."""
        return self._tmux("capture-pane", "-p", "-t", "t")

    def press(self, *keys: str) -> None:
        """Send keys as tmux names them."""
        self._tmux("send-keys", "-t", "t", *keys)

    def see(self, *words: str, gone: tuple[str, ...] = (), seconds: float = SECONDS) -> str:
        """The screen once it shows all of `words` and none of `gone`; fails when it never does.

        Words may be spread over lines.
        """
        return self.wait(
            lambda text: all(w in text for w in words) and not any(w in text for w in gone),
            f"{words} without {gone}",
            seconds,
        )

    def wait(self, holds: Callable[[str], bool], what: str, seconds: float = SECONDS) -> str:
        deadline = time.monotonic() + seconds
        while True:
            shown = self.screen()
            if holds(" ".join(shown.split())):
                return shown
            assert "Traceback" not in shown, shown
            assert time.monotonic() < deadline, f"never saw {what}:\n{shown}"

    def quit(self) -> str:
        """Press q, and see the command end well."""
        self.press("q")
        return self.see(f"{ENDED} 0")
