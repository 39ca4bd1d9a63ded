"""Events -> stderr: a line for people on a terminal, JSON lines for machines, or nothing."""

from __future__ import annotations

import json
import sys
import time

from ckptdiff.cli.console import narrate, say
from ckptdiff.events import Advanced, Event, Finished, Sink, Started, silent
from ckptdiff.report.escape import printable
from ckptdiff.report.style import human_bytes

# Nothing is shown for work that is over sooner than anybody could read it.
_PATIENCE = 0.5
_INTERVAL = 0.1


def progress_sink(mode: str) -> Sink:
    """The sink for `--progress auto|json|off`; auto is silent when stderr is no terminal."""
    if mode == "json":
        return _json_line
    if mode == "auto" and sys.stderr is not None and sys.stderr.isatty():
        return _Line()
    return silent


def _json_line(event: Event) -> None:
    line = json.dumps({"event": type(event).__name__.lower(), **event._asdict()})
    say(line)


class _Line:
    """One line that is written over: stage, share, throughput, remaining time."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.unit = ""
        self.done = 0
        self.began = self.started = self.shown = 0.0
        self.visible = False

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Started(_, total, unit):
                self.total, self.unit, self.done, self.started = total, unit, 0, now
                # Each of many short stages is over soon, and all of them together are not.
                self.began = self.began or now
            case Advanced(stage, amount, item):
                self.done += amount
                if now - self.began > _PATIENCE and now - self.shown > _INTERVAL:
                    self.shown = now
                    self._show(stage, item, now - self.started)
            case Finished():
                # What goes on now is the stage around this one, if any, and how far is not known.
                self.total, self.done, self.started = None, 0, now
                if self.visible:
                    narrate("\r\x1b[K")
                    self.visible = False

    def _show(self, stage: str, item: str, seconds: float) -> None:
        rate = self.done / seconds if seconds else 0.0
        amount, pace = f"{self.done:,} {self.unit}", f"{rate:,.{rate < 10:d}f} {self.unit}/s"
        if self.unit == "bytes":
            amount, pace = human_bytes(self.done), f"{human_bytes(rate)}/s"
        text = f"{stage}: {amount}" if self.done else f"{stage}: {seconds:.0f} s"
        if self.total and self.done:
            left = (self.total - self.done) / rate if rate else 0.0
            whole = human_bytes(self.total) if self.unit == "bytes" else f"{self.total:,}"
            text = f"{stage}: {amount} of {whole}, {self.done / self.total:.0%}, {pace}"
            text += f", {left:.0f} s left"
        room = 78 - len(text)
        if item and room > 8:
            text += f"  {printable(item)[-room:]}"
        narrate(f"\r{text[:79]}\x1b[K")
        self.visible = True
