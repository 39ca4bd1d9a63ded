"""Mode Probe: what can go wrong, and names that would do harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from driving import SAMPLES, WIDE, lines, press, screen_text
from playback import Playback, fits, probed, run, sizes
from rich.cells import cell_len
from textual.pilot import Pilot

from ckptdiff.errors import CapabilityError, ChildError, CkptdiffError
from ckptdiff.records.probe import ProbeReport
from ckptdiff.tui import probing
from ckptdiff.tui.actions import BY_ID
from ckptdiff.tui.app import CkptdiffApp

ERRORS = (
    CapabilityError("the model does not fit: 7 GB are needed, 2 GB are free",
                    "Use --device cpu, or --dtype bfloat16."),
    ChildError("the probe was ended by SIGKILL: perhaps there was too little memory",
               'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    boom()\n'
               "RuntimeError: x\nIts output is in /somewhere/probe.log."),
)  # fmt: skip


@sizes
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_are_shown_with_their_next_step(
    error: CkptdiffError, size: tuple[int, int], computed: dict[str, ProbeReport],
    play_back: Callable[..., Playback],
) -> None:  # fmt: skip
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        play_back(computed["sweep"], error)
        await press(pilot, "enter")
        text = " ".join(screen_text(app).split())
        assert error.message.split(":")[0] in text
        assert error.next_step.split("\n")[-1][:30] in text
        assert "next:" in text
        for word in ("Traceback", "line 3", "boom"):
            assert word not in text
        assert app.state.mode == "probe"
        assert probed(app).problem == str(error)
        assert not app.state.failures  # it is said in the mode, not in every other one
        fits(app, size)

    run(SAMPLES / "sweep", play, size)


@sizes
def test_without_torch_the_action_says_what_to_install(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptdiff.jobs.children.find_spec", lambda name: None)
    probing._missing.cache_clear()

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        text = " ".join(screen_text(app).split())
        assert "disabled" in text
        assert "the probe needs torch" in text
        assert "pip install 'ckptdiff[probe]'" in text
        await press(pilot, "enter")
        assert app.state.probed is None
        assert "Run: the probe needs torch" in " ".join(screen_text(app).split())
        await press(pilot, "right")  # the form can be filled, and its command copied
        await press(pilot, "y")
        assert app.clipboard.startswith("ckptdiff probe")
        fits(app, size)

    try:
        run(SAMPLES / "copied", play, size)
    finally:
        probing._missing.cache_clear()


def test_without_a_base_a_reference_is_chosen(sweep: Path) -> None:
    shutil.rmtree(sweep.parent / "base")

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        assert "none found: choose one" in screen_text(app)
        assert "choose another reference above" in " ".join(screen_text(app).split())
        await press(pilot, "enter")
        assert app.state.probed is None
        await press(pilot, "y")
        assert app.clipboard == ""
        await press(pilot, "right")
        ids = [row.id for row in app.state.schemes]
        words = probing.words(probing.asked(app.state))
        assert words == ("probe", *(str(sweep / id) for id in ids))
        assert BY_ID["run"].why_not(app.state) is None

    run(sweep, play, WIDE)


def test_keys_of_the_mode_mean_nothing_elsewhere() -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "1")
        assert "enter run" not in screen_text(app)
        await press(pilot, "enter")  # opens the scheme, as before
        assert len(app.screen_stack) == 2
        assert app.state.probed is None

    run(SAMPLES / "copied", play)


@sizes
def test_names_of_strangers_are_harmless(
    size: tuple[int, int], computed: dict[str, ProbeReport], play_back: Callable[..., Playback],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Escape codes, markup and wide characters, in names, prompts and errors."""
    evil = "\x1b[2J[bold red]日本👍🏽🇩🇪e\u0301\u202e[@click=app.quit]"
    root = tmp_path / "sweep"
    shutil.copytree(SAMPLES / "sweep", root)
    renamed = {}
    for path in sorted(root.iterdir()):
        renamed[path.name] = f"{evil}{path.name}"
        path.rename(root / renamed[path.name])
    report = computed["sweep"]
    report = replace(
        report,
        results=tuple(replace(r, scheme=renamed[r.scheme], family=evil) for r in report.results),
        curves=tuple(replace(c, family=evil, schemes=tuple(renamed[s] for s in c.schemes))
                     for c in report.curves),
        worst=tuple(replace(w, text=evil * 9, scheme=renamed[w.scheme]) for w in report.worst),
        notes=(evil,),
        verdict=f"{evil}: {renamed[report.results[0].scheme]} is not told from the reference",
        device=evil,
    )  # fmt: skip

    def harmless(app: CkptdiffApp) -> None:
        text = screen_text(app)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert {cell_len(line) for line in lines(app)} == {size[0]}

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        harmless(app)
        play_back(report).until(99)
        await press(pilot, "right", "enter", "tab", "n", "j", "tab", "end")
        harmless(app)
        assert probed(app).complete
        await press(pilot, "6")
        harmless(app)
        await press(pilot, "5", "y")
        harmless(app)
        assert app.clipboard.isprintable()
        play_back(report, ChildError(evil, evil))
        await press(pilot, "enter")
        harmless(app)

    run(root, play, size, base=str(SAMPLES / "base"))
