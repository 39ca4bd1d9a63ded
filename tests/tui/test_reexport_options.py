"""What the plan dialog offers beside engine and donors: preset, score, place; what it says of them,
and the command that is the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from command import run as run_command
from driving import NARROW, WIDE, press, screen_text
from repairing import (
    NAME,
    broken_sweep,
    choose,
    dialog,
    fits,
    report_of,
    roomless,
    run,
    sizes,
    words_on,
)
from textual.pilot import Pilot
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.events import CancelToken, silent
from ckptdiff.records.plan import ENGINES
from ckptdiff.tui.actions import command_line
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.reexports import TUNING, Request, planned
from ckptdiff.tui.screens.dialogs import Ask
from ckptdiff.tui.screens.replan import chosen, form_fields


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return broken_sweep(tmp_path)


FULL = Request(
    ("q/a",), preset="INT8_DEFAULT_CFG", calib="rows.txt", score="kl_div", out="elsewhere",
    calib_samples=3, calib_length=64, seed=-1, trust_remote_code=True,
)  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_the_fields_that_it_has_a_use_for(engine: str) -> None:
    request = chosen(FULL, "engine", engine)
    fields = {field.name: field for field in form_fields(request)}
    assert list(fields) == [
        "engine", "place", "donor", "preset", "calib", "score",
        *(TUNING if engine in ("modelopt", "autoquant") else ()),
    ]  # fmt: skip
    # A field that means nothing says why, and cannot be changed.
    dead = {name for name, field in fields.items() if not field.choices and not field.typed}
    assert dead == {
        "auto": {"score"}, "modelopt": {"score"}, "autoquant": set(),
        "compose": {"preset", "calib", "score"},
    }[engine]  # fmt: skip
    assert all(fields[name].text in ("no model is run", "for autoquant alone") for name in dead)
    words = request.words
    assert words[-3:] == ("--out", "elsewhere", "--yes")
    for name in ("preset", "calib", "score", *TUNING):
        assert (f"--{name.replace('_', '-')}" in words) is (name in fields.keys() - dead)
    # What was chosen is there again once it means something.
    assert chosen(request, "engine", "autoquant").options.score == "kl_div"


def test_what_was_not_chosen_is_not_in_the_command() -> None:
    request = Request(("q/a",), engine="autoquant")
    assert request.words == ("reexport", "q/a", "--engine", "autoquant", "--yes")


def test_numbers_are_whole_and_go_back() -> None:
    request = Request(("q/a",), engine="modelopt")
    for name, least in (("calib_samples", 1), ("calib_length", 1), ("seed", None)):
        changed = chosen(request, name, "7")
        assert getattr(changed.options, name) == 7
        assert chosen(changed, name, "") == request
        for wrong in ("0" if least else "x", "1.5", "-", "٣", "1" * 40):
            with pytest.raises(ValueError, match=f"{wrong} is no"):
                chosen(request, name, wrong)
    assert chosen(request, "seed", "-3").options.seed == -3
    trusting = chosen(request, "trust_remote_code", "run")
    assert trusting.options.trust_remote_code
    assert chosen(trusting, "trust_remote_code", "never run") == request


def test_a_place_is_beside_instead_or_a_directory() -> None:
    request = Request(("q/a",))
    here = chosen(request, "place", "--in-place")
    assert (here.in_place, here.out) == (True, "")
    there = chosen(here, "place", "new")
    assert (there.in_place, there.out) == (False, "new")
    assert chosen(there, "place", "") == request
    assert [form_fields(r)[1].text for r in (request, here, there)] == [
        "beside, as _v2", "in its place", "below new"
    ]  # fmt: skip


# The same by the command line

ROWS = "rows.txt"
CHOICES = {
    "preset": {"preset": "INT8_DEFAULT_CFG"},
    "modelopt": {"engine": "modelopt", "preset": "NVFP4_DEFAULT_CFG", "out": "new place"},
    "search": {"engine": "autoquant", "preset": "FP8_DEFAULT_CFG", "score": "kl_div",
               "calib": ROWS, "calib_samples": 2, "calib_length": 9, "seed": -5,
               "trust_remote_code": True},
    "compose": {"engine": "compose", "preset": "INT8_DEFAULT_CFG", "score": "kl_div",
                "out": "-new"},
    "unknown preset": {"engine": "modelopt", "preset": "FP9_CFG"},
    "no preset": {"preset": "--yes"},
    "no rows": {"engine": "autoquant", "calib": "none.txt"},
    "a place in a source": {"out": "base"},
    "a place that is taken": {"out": "quantized"},
    "a place that is a file": {"out": ROWS},
}  # fmt: skip


@pytest.mark.parametrize("choice", list(CHOICES))
def test_the_command_plans_what_the_dialog_plans(
    choice: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    Path(ROWS).write_text("one row\n" * 3)
    request = Request((f"quantized/{NAME.format(10)}",), "base", **CHOICES[choice])  # type: ignore[arg-type]
    answer = planned(request, silent, CancelToken())
    line = shlex.split(command_line(request.words))
    done = run_command(*line[1:], "--dry-run", "--json", cwd=copied.parent)
    if answer.planned is None:
        assert done.code == 2
        said, _, advice = answer.problem.partition("\n")
        assert said in done.err and advice in done.err
        return
    assert done.code == (0 if answer.possible else 2), done.err
    assert roomless(done.out) == roomless(api.render(answer.planned.report, "json"))


# In the dialog


@sizes
def test_preset_score_and_place_are_chosen_with_keys(
    copied: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e", "left")
        assert dialog(app).request.engine == "autoquant"
        await choose(pilot, "preset", "INT8_DEFAULT_CFG")
        (plan,) = report_of(app).plans
        assert plan.algorithm == "INT8_DEFAULT_CFG"
        assert "to INT8_DEFAULT_CFG" in words_on(app)
        await press(pilot, "down", "down", "right")
        assert dialog(app).request.score == "kl_div"
        await choose(pilot, "place", str(tmp_path / "new"))
        (plan,) = report_of(app).plans
        assert plan.target == str(tmp_path / "new" / NAME.format(10))
        assert plan.possible
        fits(app, size)
        await press(pilot, "y")
        words = shlex.split(app.clipboard)
        assert words[words.index("--out") :] == ["--out", str(tmp_path / "new"), "--yes"]
        assert words[words.index("--score") + 1] == "kl_div"
        assert words[words.index("--preset") + 1] == "INT8_DEFAULT_CFG"
        # An arrow brings the default back.
        await press(pilot, "right")
        assert dialog(app).request.out == "" and not dialog(app).request.in_place
        await press(pilot, "down", "down", "right")
        assert dialog(app).request.preset == ""
        await press(pilot, "down", "down", "right")
        assert dialog(app).request.score == "gradient"
        # Nothing happens where a field means nothing.
        await press(pilot, *["up"] * 5, "right", "right", *["down"] * 5, "right", "space")
        assert dialog(app).request.engine == "compose"
        assert "for autoquant alone" in words_on(app) and "no model is run" in words_on(app)
        assert dialog(app).request.score == "gradient"

    run(copied, play, size)
    assert not (tmp_path / "new").exists()


@sizes
def test_rows_tokens_seed_and_code_are_chosen_where_a_model_is_run(
    copied: Path, size: tuple[int, int]
) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        assert "at most" not in words_on(app)
        await press(pilot, "right", "right")
        assert dialog(app).request.engine == "modelopt"
        await choose(pilot, "calib_samples", "5")
        assert "calibrated on 5 rows" in " ".join(report_of(app).plans[0].notes)
        await choose(pilot, "calib_length", "none")
        assert "none is no number of" in words_on(app)
        await choose(pilot, "calib_length", "33")
        await choose(pilot, "seed", "9")
        await press(pilot, "down", "right")
        assert "rows at most 5" in words_on(app) and "tokens at most 33 of a row" in words_on(app)
        fits(app, size)
        await press(pilot, "y")
        words = shlex.split(app.clipboard)
        at = words.index("--calib-samples")
        assert words[at:-1] == [
            "--calib-samples", "5", "--calib-length", "33", "--seed", "9", "--trust-remote-code"
        ]  # fmt: skip
        # An arrow brings the default back.
        await press(pilot, "up", "right")
        assert dialog(app).request.seed is None

    run(copied, play, size)


def test_a_preset_that_modelopt_does_not_know(copied: Path) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        await choose(pilot, "preset", "FP9_CFG")
        text = words_on(app)
        assert "✗ ModelOpt has no preset FP9_CFG" in text and "FP8_DEFAULT_CFG," in text
        await press(pilot, "enter")
        assert "there is no plan" in words_on(app)

    run(copied, play)


def test_a_question_begins_with_a_place_beside_the_sweep(copied: Path) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e", "down", "space")
        assert isinstance(app.screen, Ask)
        assert app.screen.query_one(Input).value == f"{copied}_v2"
        await press(pilot, "enter")
        assert dialog(app).request.out == f"{copied}_v2"

    run(copied, play)


def test_a_home_is_spelled_out(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(copied.parent))

    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        await choose(pilot, "place", "~/new")
        assert dialog(app).request.out == str(copied.parent / "new")
        await choose(pilot, "donor", "~/base ~/quantized")
        assert dialog(app).request.donors == (f"{copied.parent}/base", f"{copied.parent}/quantized")

    run(copied, play)


@pytest.mark.parametrize("size", [(40, 10), NARROW, WIDE])
def test_on_any_screen_the_keys_and_the_answer_are_in_sight(
    copied: Path, size: tuple[int, int]
) -> None:
    async def play(pilot: Pilot[None], app: CkptdiffApp) -> None:
        await press(pilot, "space", "e")
        assert "enter write" in words_on(app) and "possible: 1 scheme" in words_on(app)
        assert ("1/6" in screen_text(app)) is (size == (40, 10))
        for _ in range(5):
            await press(pilot, "down")
        assert "score" in screen_text(app)
        await press(pilot, "up", "up", "space")
        box = app.screen.query_one(Input)
        assert 0 < box.region.bottom <= size[1], "what is typed is out of sight"
        assert box.region.width > 20
        fits(app, size)

    run(copied, play, size)
