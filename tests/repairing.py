"""What tests of re-exports in the app share: a broken sweep, a donor, a look at disk."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from driving import NARROW, SAMPLES, WIDE, drive, lines, press, screen_text
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff.records.plan import PlanReport
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.screens.dialogs import Ask
from ckptdiff.tui.screens.replan import PlanDialog, form_fields
from ckptdiff.tui.state import JobRecord

Play = Callable[["Pilot[None]", CkptdiffApp], Awaitable[None]]
sizes = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "160x50"])

NAME = "fp8_autoquant_all_layers_top{}_captions"
PERCENTS = (10, 30, 50, 100)
SWEEP = SAMPLES / "sweep"
WHOLE = SWEEP / NAME.format(100)
BASELINE = SWEEP / "fp8_autoquant_all_layers_fp8_captions"
PROVENANCE = "layer-sensitivity/ckptdiff-provenance.json"


def broken_sweep(folder: Path) -> Path:
    """The ROOT of a copy of the founding bug, with its base beside it."""
    shutil.copytree(SAMPLES / "base", folder / "base")
    return Path(shutil.copytree(SAMPLES / "copied", folder / "quantized"))


def files(path: Path) -> dict[str, bytes]:
    """Every file below `path`, hidden ones too."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def children(parent: int | None = None) -> list[int]:
    """The processes that `parent` (this one) started for exports and that are not over."""
    mine = os.getpid() if parent is None else parent
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _exports(pid, mine)]


def _exports(pid: int, parent: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return int(fields[1]) == parent and fields[0] != "Z" and b"ckptdiff.runtime.export" in command


async def choose(pilot: Pilot[None], field: str, value: str) -> None:
    """Type a value into a field of the plan dialog, which has the cursor on its first one."""
    order = [each.name for each in form_fields(dialog(pilot.app).request)]
    for _ in order:
        await press(pilot, "up")
    for _ in range(order.index(field)):
        await press(pilot, "down")
    await press(pilot, "space")
    question = pilot.app.screen
    assert isinstance(question, Ask), screen_text(pilot.app)
    question.query_one(Input).value = value
    await press(pilot, "enter")


def run(root: Path, play: Play, size: tuple[int, int] = NARROW, **options: object) -> None:
    """Play on the app that looks at `root`, once it has judged it."""

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        await play(pilot, app)

    drive(root, scenario, size, **options)


def words_on(app: CkptdiffApp) -> str:
    """The screen as one line, so that what is wrapped is found."""
    return " ".join(screen_text(app).split())


def dialog(app: CkptdiffApp) -> PlanDialog:
    """The plan that is shown."""
    assert isinstance(app.screen, PlanDialog), screen_text(app)
    return app.screen


def report_of(app: CkptdiffApp) -> PlanReport:
    """What that plan says."""
    answer = dialog(app).answer
    assert answer is not None and answer.planned is not None, screen_text(app)
    return answer.planned.report


def roomless(report: bytes) -> bytes:
    """Without the free bytes of the disk, which change from moment to moment."""
    return re.sub(rb'"free":\s*\d+', b'"free":0', report)


def fits(app: CkptdiffApp, size: tuple[int, int]) -> None:
    """Fail unless the screen has exactly this size."""
    shown = lines(app)
    assert len(shown) == size[1]
    assert {len(line) for line in shown} == {size[0]}


def job(app: CkptdiffApp) -> JobRecord:
    """The newest job."""
    return app.state.jobs[-1]
