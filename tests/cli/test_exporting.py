"""Options of ModelOpt's engines on the command line, and what is told of a child that failed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import run

from ckptdiff import api
from ckptdiff.records.plan import PLAN_SCHEMA, Outcome, PlanReport
from ckptdiff.records.report import Tool

SAMPLES = Path(__file__).parents[2] / "samples"
BASE = SAMPLES / "base"
BROKEN = SAMPLES / "copied/fp8_autoquant_all_layers_top30_captions"
WHOLE = SAMPLES / "sweep/fp8_autoquant_all_layers_top100_captions"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "10"], "Name BASELINE, or a model by --baseline-from"),
        ([BROKEN, "--baseline-from", BASE, "--top", "10"], "Name BASELINE, or a model"),
        (["--baseline-from", BASE, "--base", BASE, "--top", "10"], "makes its own donor"),
        ([BROKEN, "--bits", "9", "--top", "10"], "go with --baseline-from"),
        ([BROKEN, "--seed", "9", "--top", "10"], "go with --baseline-from"),
        (["--baseline-from", BASE, "--top", "0"], "percentages lie above 0"),
        (["--baseline-from", BROKEN, "--top", "10"], "no full-precision checkpoint"),
        (
            ["--baseline-from", BASE, "--preset", "NVFP4_AWQ_LITE_CFG", "--top", "10"],
            "no scheme can be composed of NVFP4_AWQ_LITE_CFG",
        ),
        (
            ["--baseline-from", BASE, "--preset", "FP8_KV_CFG", "--top", "10"],
            "FP8_KV_CFG quantizes a KV cache and no weight",
        ),
    ],
)
def test_what_goes_with_baseline_from(
    arguments: list[str | Path], message: str, tmp_path: Path
) -> None:
    done = run("sweep", *arguments, "--out", tmp_path / "q", "--yes")
    assert done.code == 2 and message in " ".join(done.err.split())
    assert not (tmp_path / "q").exists()


def test_the_plan_of_a_sweep_from_a_model(tmp_path: Path) -> None:
    """Nothing is run for it, so it takes no time."""
    done = run("sweep", "--baseline-from", BASE, "--top", "10,100", "--bits", "9.5",
               "--out", tmp_path / "q", "--dry-run")  # fmt: skip
    assert done.code == 0
    assert "PLAN: 3 schemes" in done.text and "spends 9.5 bits" in done.text
    for name in ("fp8", "top10", "top100"):
        assert f"\nfp8_autoquant_all_layers_{name}\n" in done.text
    assert not (tmp_path / "q").exists()


def test_a_target_that_is_there_stops_a_sweep_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "fp8_autoquant_all_layers_top10").mkdir()
    done = run("sweep", "--baseline-from", BASE, "--top", "10", "--out", tmp_path, "--yes")
    assert done.code == 2 and "is there already" in done.err


def test_a_sweep_is_not_written_into_its_model(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    done = run("sweep", "--baseline-from", base, "--top", "10", "--out", base / "q", "--yes")
    assert done.code == 2 and "would be inside" in " ".join(done.err.split())
    assert not (base / "q").exists()


def test_a_directory_that_cannot_be_made_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "q"
    done = run("sweep", "--baseline-from", BASE, "--top", "10", "--out", out, "--yes")
    said = " ".join(done.err.split())
    assert done.code == 2 and "cannot be written" in said and "Nothing was changed" in said


def test_options_of_a_model_that_is_not_run_are_said_to_change_nothing(tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("a row of text\n")
    done = run("reexport", BROKEN, "--base", BASE, "--donor", WHOLE, "--calib", rows,
               "--score", "kl_div", "--out", tmp_path / "q", "--dry-run")  # fmt: skip
    said = " ".join(done.text.split())
    assert "--calib changes nothing: --engine modelopt runs one" in said
    assert "--score changes nothing: --engine autoquant searches" in said


def test_a_score_is_said_to_change_nothing_where_nothing_is_searched(tmp_path: Path) -> None:
    told = "--score changes nothing: --engine autoquant searches"
    for engine, score in (
        ("modelopt", "kl_div"),
        ("modelopt", "gradient"),
        ("autoquant", "kl_div"),
    ):
        done = run("reexport", BROKEN, "--base", BASE, "--engine", engine, "--score", score,
                   "--out", tmp_path / "q", "--dry-run")  # fmt: skip
        assert done.code == 0, done.err
        assert (told in " ".join(done.text.split())) == ((engine, score) == ("modelopt", "kl_div"))


def test_a_calibration_file_with_a_bad_row(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "fine"}\nnot JSON\n')
    done = run("reexport", BROKEN, "--engine", "modelopt", "--base", BASE, "--calib", rows,
               "--out", tmp_path / "q", "--yes")  # fmt: skip
    assert done.code == 2 and "line 2 of" in done.err and "is not JSON" in done.err
    assert not (tmp_path / "q").exists()


def test_the_end_of_a_log_is_shown_line_by_line() -> None:
    outcome = Outcome("top10", "/q/top10", "failed", reason="the export ended",
                      next_step="first line\nsecond line", exit_code=4)  # fmt: skip
    report = PlanReport(PLAN_SCHEMA, Tool("ckptdiff", "0"), (), (outcome,))
    shown = api.render(report).decode().splitlines()
    assert "  next         first line" in shown
    assert "               second line" in shown
    assert api.exit_code(report) == 4
