"""What is left out, and what is kept, where a screen has little room."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from driving import SAMPLES, drive, lines, press, screen_text, until
from rich.cells import cell_len
from textual.pilot import Pilot

from ckptdiff import api
from ckptdiff.records.layers import Cell
from ckptdiff.tui import chrome
from ckptdiff.tui.actions import BY_ID, no_reexport
from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.describe import cell_lines, rule_lines
from ckptdiff.tui.state import MODES, JobRecord, Options, State
from ckptdiff.tui.text import Line, clipped, labels, short_names, told_apart
from ckptdiff.tui.widgets.form import Field, Form

TINY = (40, 10)
COPIED = SAMPLES / "copied"


@pytest.fixture(scope="module")
def state() -> State:
    """The founding bug, judged from headers."""
    report = api.check(COPIED, base=SAMPLES / "base", hashes=False)
    return State(Options(str(COPIED)), report=report)


def text(found: list[Line]) -> list[str]:
    return ["".join(part for part, _ in line) for line in found]


# The lines around every mode


@pytest.mark.parametrize("width", [40, 60, 67])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_key_in_the_title(state: State, mode: str, width: int) -> None:
    state = replace(state, mode=mode)  # type: ignore[arg-type]
    (title,) = text(chrome.title(state, [mode.capitalize()], width))
    assert cell_len(title) <= width
    assert f" {BY_ID[mode].key} {BY_ID[mode].name} " in title
    assert all(f" {BY_ID[other].key} " in title for other in MODES)
    # And a click on each of them is a click on that mode.
    spots = chrome.title_spots(state, [], width)
    for other in MODES:
        (place,) = (n for n in range(width) if title[n : n + 3] == f" {BY_ID[other].key} ")
        assert chrome.action_at(spots, place + 1) == other


def test_with_room_every_mode_has_its_name(state: State) -> None:
    (title,) = text(chrome.title(state, ["Sweep"], 80))
    assert all(f" {BY_ID[mode].key} {BY_ID[mode].name} " in title for mode in MODES)


def test_the_status_counts_what_changed_and_what_is_gone(state: State) -> None:
    for changed, gone, said in (
        ("ab", "c", "~ 2 changed, 1 gone"),
        ("a", "", "~ 1 changed"),
        ("", "abc", "~ 3 gone"),
    ):
        later = replace(state, changed=frozenset(changed), gone=tuple(gone))
        (line,) = text(chrome.status(later, "", 150))
        assert line.rstrip().endswith(said) and "~ 0" not in line
    (line,) = text(chrome.status(state, "", 150))
    assert "~" not in line


@pytest.mark.parametrize("width", range(30, 120, 7))
def test_words_of_the_status_are_whole_or_not_there(state: State, width: int) -> None:
    (line,) = text(chrome.status(replace(state, deep=True), "104 mismatches", width))
    assert cell_len(line) <= width and line.endswith("  104 mismatches")
    said = line.removesuffix("104 mismatches").split("  ")
    assert state.report is not None
    errors = f"{state.report.counts.errors} errors"
    whole = {"4 schemes", errors, "none safe to use", "deep", ""}
    cut = [part for part in map(str.strip, said) if part not in whole]
    assert all(part.startswith("base ") for part in cut)
    assert "4 schemes" in said
    # A path may be cut, as long as enough of it is left.
    assert all("…" not in part or len(part) > 12 for part in cut)


def test_a_verdict_that_is_cut_says_so(state: State) -> None:
    assert state.report is not None
    whole = text(chrome.verdict(state, 78))
    assert len(whole) == 2 and not whole[-1].endswith("…")
    (line,) = text(chrome.verdict(state, 38, 1))
    assert line.endswith("…") and cell_len(line) <= 38
    # Nor is a long sentence cut in silence.
    sentence = " ".join(["many words"] * 60)
    verdict = replace(state.report.verdict, sentence=sentence)
    long = text(chrome.verdict(replace(state, report=replace(state.report, verdict=verdict)), 78))
    assert len(long) == 3 and long[-1].endswith("…") and cell_len(long[-1]) <= 78


def test_clipped() -> None:
    three: list[Line] = [[("a", "")], [("bb ", "x"), ("漢漢漢", "y")], [("c", "")]]
    assert clipped(three, 3, 4) is three
    assert clipped(three, 2, 80) == [[("a", "")], [("bb ", "x"), ("漢漢漢…", "y")]]
    # Never half a wide character.
    assert clipped(three, 2, 7) == [[("a", "")], [("bb ", "x"), ("漢…", "y")]]


# Names


def test_what_was_written_anew_has_a_name_of_its_own() -> None:
    ids = [f"fp8_all_layers_top{n}_captions" for n in ("10", "30", "100")]
    ids.insert(1, f"{ids[0]}_v2")
    assert short_names(ids) == ["top10", "top10_v2", "top30", "top100"]
    found = labels(ids, None)
    for columns in (12, 14, 15, 18, 40):
        names = [told_apart(id, found[id], columns) for id in ids]
        assert len(set(names)) == 4
        assert {cell_len(name) for name in names} == {columns}
        assert all(label.partition("_")[0] in name for label, name in
                   zip(found.values(), names, strict=True))  # fmt: skip
    # As much of the whole name as there is room for.
    assert told_apart(ids[1], "top10_v2", 18) == "…top10_captions_v2"
    assert told_apart(ids[1], "top10_v2", 15).strip() == "top10_v2"
    # What all have tells none of them apart.
    assert short_names([f"{id}_v2" for id in ids[2:]]) == ["top30", "top100"]
    # Of one scheme and what was made of it nothing is alike but the mark.
    assert short_names(["a_top10", "a_top10_v2"]) == ["a_top10", "a_top10_v2"]


# Details


def test_the_manual_of_a_rule_is_wrapped_once() -> None:
    (rule,) = api.rule_table("CK501")
    for width in (38, 78, 158):
        shown = text(rule_lines(rule, width))
        assert max(map(cell_len, shown)) <= min(width, 100)
        joined = " ".join(" ".join(shown).split())
        assert " ".join(rule.manual.split()) in joined
        # No line ends where the next word would have had room.
        for line, after in pairwise(shown[2:]):
            if line and after:
                assert cell_len(line) + 1 + cell_len(after.split(" ")[0]) > min(width, 90)


def test_labels_of_a_cell_are_one_column() -> None:
    cell = Cell(dtype="F8_E4M3", quantized=True, selected=False, agrees=False)
    values = {"scheme": "top10", "on disk": "FP8", "manifest": "leaves it out"}
    shown = text(cell_lines("model.a", "top10", cell, 60))
    assert len({line.index(value) for label, value in values.items()
                for line in shown if line.strip().startswith(label)}) == 1  # fmt: skip


# Whole screens


def test_all_modes_on_a_tiny_screen() -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        for mode in MODES:
            await press(pilot, BY_ID[mode].key)
            await until(pilot, lambda: "?" in lines(app)[-1])
            shown = lines(app)
            assert {cell_len(line) for line in shown} == {40}
            assert BY_ID[mode].name in shown[0]
            assert "✗ FAIL" in shown[1] and shown[1].rstrip().endswith("…")
        assert "probes" in screen_text(app)  # the end of what Jobs says, wrapped

    drive(COPIED, scenario, TINY)


def test_a_job_on_a_tiny_screen_has_its_details() -> None:
    record = JobRecord("re-export 1", "re-export of top10", ("reexport", "q/top10"), 0.0,
                       plan=(("top10", "compose"),))  # fmt: skip

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, CkptdiffApp)
        app.set_state(app.state.with_record(record))
        await press(pilot, "6")
        assert "x cancels it" in screen_text(app) or "starting" in screen_text(app)

    drive(COPIED, scenario, TINY)


def test_a_form_that_scrolls_says_where_it_is() -> None:
    fields = [Field(str(n), f"field {n}", "", "value") for n in range(8)]
    form = Form(lambda: fields, changed=lambda *_: None, ask=lambda _: None)  # type: ignore[arg-type, return-value]
    form.cursor = 2

    def first(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> str:
        from textual.geometry import Size

        monkeypatch.setattr(Form, "size", Size(width, height))
        monkeypatch.setattr(Form, "strip", lambda self, line, width: line)
        return "".join(part for part, _ in form.render_line(0))

    with pytest.MonkeyPatch.context() as patch:
        assert first(38, 1, patch).endswith(" 3/8")
        assert len(first(38, 1, patch)) <= 38
        assert "/8" not in first(38, 8, patch)


# One at a time


def test_a_second_re_export_is_told_why_and_what_to_do(state: State) -> None:
    assert no_reexport(state) is None
    record = JobRecord("re-export 1", "re-export of top10", ("reexport", "q/top10"), 0.0)
    reason = no_reexport(state.with_record(record))
    assert reason is not None
    for part in ("one is written at a time", "the re-export of top10 is not over", "6 shows",
                 "cancel it there (x)", "press e again"):  # fmt: skip
        assert part in reason
    assert no_reexport(state.with_record(record._replace(ended=1.0))) is None
    # A probe writes nothing that could be in the way.
    assert no_reexport(state.with_record(record._replace(words=("probe",)))) is None
