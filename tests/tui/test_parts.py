"""Text, filters, stores and charts: plain functions, no app."""

from __future__ import annotations

import math
import random
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ckptdiff.records.detail import Overlap
from ckptdiff.tui.filters import Filter, Term, count_text, parse
from ckptdiff.tui.screens.sweep import steps
from ckptdiff.tui.state import State, next_pair
from ckptdiff.tui.store import Column, Store
from ckptdiff.tui.tables import heat, overlap_store
from ckptdiff.tui.text import Line, fit, labels, short_names, shown, told_apart, wrapped
from ckptdiff.tui.widgets.curve import bars, curve
from ckptdiff.tui.widgets.dtypebar import dtype_bar, dtype_legend, shares
from ckptdiff.tui.widgets.staircase import Step, staircase

NASTY = (
    "\x1b[2J\x1b]0;owned\x07", "[bold red]x[/]", "日本語のテンソル", "👍🏽👩‍👩‍👧🇩🇪", "e\u0301" * 5,
    "a\u202eb", "\u200b\u2060", "zero\x00nul", "tab\tline\nfeed", "\udcff lone", "한글\u115f",
)  # fmt: skip
texts = st.one_of(st.text(max_size=60), st.sampled_from(NASTY))


def harmless(text: str) -> bool:
    """Whether every character is one that is drawn, or a space."""
    return not {unicodedata.category(c) for c in text} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line)


@given(texts, st.integers(1, 70), st.sampled_from(["left", "right"]))
def test_a_cell_has_its_width_whatever_is_in_it(text: str, columns: int, align: str) -> None:
    cell = fit(text, columns, align)  # type: ignore[arg-type]
    assert cell_len(cell) == columns
    assert harmless(cell)
    # As wide as its characters one by one: no sequence that terminals draw differently.
    assert sum(map(cell_len, cell)) == columns


@given(texts)
def test_what_is_shown_is_harmless(text: str) -> None:
    assert harmless(shown(text))
    assert shown(shown(text)) == shown(text)


@given(texts, st.integers(8, 60))
def test_wrapped_lines_fit_and_lose_no_letter(text: str, columns: int) -> None:
    lines = wrapped(text, columns)
    assert all(cell_len(line) <= columns for line in lines)
    assert "".join("".join(lines).split()) == "".join(shown(text).split())


def test_fit_keeps_both_ends() -> None:
    assert fit("model.layers.0.self_attn.q_proj", 16) == "model…ttn.q_proj"
    assert fit("abc", 5) == "abc  "
    assert fit("abc", 5, "right") == "  abc"


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["fp8_top10_coco", "fp8_top100_coco"], ["top10", "top100"]),
        (["a/top10", "b/top10"], ["a", "b"]),
        (["one"], ["one"]),
        (["x/one"], ["one"]),
        (["same", "same"], ["same", "same"]),
        (["a", "a_b"], ["a", "a_b"]),
        ([], []),
    ],
)
def test_short_names(names: list[str], short: list[str]) -> None:
    assert short_names(names) == short


def test_labels_and_names_that_are_told_apart() -> None:
    ids = ["fp8_all_layers_top10_coco2017", "fp8_all_layers_top100_coco2017"]
    short = labels([*ids, "../base"], "../base")
    assert short == {ids[0]: "top10", ids[1]: "top100", "../base": "base"}
    assert told_apart(ids[0], "top10", 40) == ids[0].ljust(40)
    assert told_apart(ids[0], "top10", 16) == "…top10_coco2017 "
    assert told_apart(ids[1], "top100", 12) == "…top100_coc…"
    for columns in range(1, 40):
        assert cell_len(told_apart(ids[1], "top100", columns)) == columns


# Filters


def test_the_filter_language() -> None:
    fields = ("dtype", "status", "rule")
    assert parse("  up  !status:ok DTYPE:FP8", fields) == Filter(
        (Term("text", "up"), Term("status", "ok", True), Term("dtype", "fp8"))
    )
    assert parse("status:", fields) == Filter()
    assert parse("!", fields) == Filter()
    assert parse("shape:3 x", fields) == Filter((Term("text", "x"),), ("shape",))
    assert parse("a.0:b", fields) == Filter((Term("text", "a.0:b"),))  # a name, no field
    assert count_text(312, 48120) == "312 of 48,120"


def store() -> Store:
    names = ["layers.0.up", "layers.1.up", "layers.2.DOWN", "layers.10.up"]
    return Store(
        (
            Column("name", "name", names, as_given=True),
            Column("error", "error", [0.5, None, math.nan, 0.25]),
        ),
        names,
        {"dtype": ["F8_E4M3 FP8", "BF16", "BF16 F8_E4M3 FP8", "I8"],
         "status": ["error", "ok", "error", "ok"]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "rows"),
    [
        ("", [0, 1, 2, 3]),
        ("down", [2]),
        ("UP !layers.1", [0]),
        ("layers.1", [1, 3]),
        ("dtype:fp8", [0, 2]),
        ("dtype:8", []),  # a word begins with it, or it does not match
        ("!dtype:bf16", [0, 3]),
        ("status:err !down", [0]),
        ("nothing", []),
    ],
)
def test_what_a_filter_leaves(typed: str, rows: list[int]) -> None:
    table = store()
    table.narrow(parse(typed, ("dtype", "status")))
    assert table.view == rows
    assert (len(table), table.total) == (len(rows), 4)


def test_sorting_puts_what_has_no_value_last() -> None:
    table = store()
    table.sort("error")
    assert table.view == [3, 0, 1, 2]
    table.sort("error", descending=True)
    assert table.view == [0, 3, 1, 2]
    table.narrow(parse("up", ()))
    assert table.view == [0, 3, 1]
    table.sort("name", descending=True)
    assert table.view == [3, 1, 0]
    table.sort(None)
    assert table.view == [0, 1, 3]
    assert table.row_of("layers.10.up") == 2
    assert table.row_of("layers.2.DOWN") is None
    assert table.row_of("gone") is None
    with pytest.raises(KeyError):
        table.sort("nothing")


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=50), st.booleans())
def test_sorting_is_a_stable_permutation(values: list[float | None], descending: bool) -> None:
    table = Store((Column("v", "v", values),), [str(n) for n in range(len(values))])
    table.sort("v", descending)
    assert sorted(table.view) == list(range(len(values)))
    known = [value for row in table.view if (value := values[row]) is not None and value == value]
    assert known == sorted(known, reverse=descending)


# Charts


@given(
    st.dictionaries(st.sampled_from(["F8_E4M3", "BF16", "I8", "U8", "F32", "X"]),
                    st.integers(0, 10**12)),
    st.integers(1, 40),
)  # fmt: skip
def test_a_dtype_bar_is_as_wide_as_it_must_be(sizes: dict[str, int], width: int) -> None:
    bar = dtype_bar(sizes, width)
    assert cell_len(text_of(bar)) == width
    present = [size for size in sizes.values() if size]
    assert len(bar) == max(1, min(width, len(present)))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.integers(8, 60))
def test_shares_add_up_and_are_within_a_column_of_exact(parts: list[int], width: int) -> None:
    given_ = shares(parts, width)
    assert sum(given_) == width
    assert min(given_) >= 1
    spare = width - len(parts)
    for part, columns in zip(parts, given_, strict=True):
        assert abs(columns - 1 - spare * part / sum(parts)) < 1


def test_fills_tell_dtypes_apart_without_colour() -> None:
    bar = dtype_bar({"F8_E4M3": 50, "BF16": 30, "I8": 10, "F32": 10}, 20)
    assert [text[0] for text, _ in bar] == ["█", "░", "=", "▓"]
    assert "FP8 50 %" in text_of(dtype_legend({"F8_E4M3": 50, "BF16": 50}))


def copies() -> list[Step]:
    return [Step(f"top{n}", n / 100, 0.67, False) for n in (10, 30, 50, 100)]


@pytest.mark.parametrize("width", [24, 31, 36, 62, 100])
@pytest.mark.parametrize("height", [6, 12, 30])
def test_the_founding_bug_is_a_plain_under_stairs(width: int, height: int) -> None:
    lines = staircase(copies(), width, height)
    assert len(lines) == height
    chart = [text_of(line)[5:] for line in lines[:-2]]
    slot = min(12, (width - 5) // 4)
    tops = [
        next(y for y, line in enumerate(chart) if line[n * slot] in "▁▂▃▄▅▆▇█") for n in range(4)
    ]
    levels = [next(y for y, line in enumerate(chart) if line[n * slot] == "━") for n in range(4)]
    # The line is drawn over the columns, so a column may begin a row below its line.
    assert max(tops) - min(tops) <= 1
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > levels[3] == 0
    assert all(level == round((1 - step.declared) * (height - 3))  # type: ignore[operator]
               for level, step in zip(levels, copies(), strict=True))  # fmt: skip


def test_healthy_columns_stand_under_their_stairs() -> None:
    healthy = [replace(step, actual=step.declared, agrees=True) for step in copies()]
    chart = [text_of(line)[5:] for line in staircase(healthy, 36, 14)[:-2]]
    for n in range(4):
        column = [line[n * 7] for line in chart]
        level = column.index("━")
        assert set(column[:level]) <= {" "}
        assert set(column[level + 1 :]) <= {"█"}


@given(
    st.lists(st.builds(Step, st.text(max_size=9), st.one_of(st.none(), st.floats(0, 1)),
                       st.one_of(st.none(), st.floats(0, 1)), st.booleans()), max_size=40),
    st.integers(6, 90), st.integers(1, 30),
)  # fmt: skip
def test_a_staircase_is_never_larger_than_its_place(
    many: list[Step], width: int, height: int
) -> None:
    lines = staircase(many, width, height)
    assert len(lines) in (0, height)
    assert all(cell_len(text_of(line)) <= width for line in lines[:-1])


def test_what_is_unknown_has_no_step() -> None:
    assert steps(()) == []
    lines = staircase([Step("a", None, 0.5, True), Step("b", 0.5, None, True)], 30, 10)
    assert "?" in "".join(map(text_of, lines))


def test_a_curve_on_a_logarithmic_axis() -> None:
    points = [(float(x), 10.0 ** (-x)) for x in range(11)]
    lines = [text_of(line) for line in curve(points, 40, 12)]
    assert lines[0].split("│")[0].strip() == "1"
    assert lines[9].split("│")[0].strip() == "1e-10"
    # A power of ten a step is a straight line: each row has its dots further right.
    starts = [len(line.split("│")[1]) - len(line.split("│")[1].lstrip()) for line in lines[:10]]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert lines[10].split() == ["0", "10"]


def test_a_curve_says_what_it_leaves_out() -> None:
    lines = [text_of(line) for line in curve([(0, 1.0), (1, 0.0), (2, math.nan), (3, 2.0)], 40, 8)]
    assert "2 of 4 points" in lines[-1]
    assert "no value" in text_of(curve([(0, 0.0)], 40, 8)[0])
    assert curve([(0, 1.0)], 5, 8) == []


def test_bars_show_something_for_everything() -> None:
    chart = [text_of(line) for line in bars([0, 1, 1000, 500], 4, 4)]
    assert [line[0] for line in chart] == [" "] * 4
    assert [line[1] for line in chart] == [" ", " ", " ", "▁"]
    assert [line[2] for line in chart] == ["█"] * 4
    assert [line[3] for line in chart] == [" ", " ", "█", "█"]
    assert len(text_of(bars(list(range(100)), 30, 2)[0])) <= 30
    assert bars([], 10, 3) == []


def test_heat_says_100_of_nothing_less() -> None:
    assert heat(1.0, False)[0] == "=100"
    assert heat(0.99999, False)[0] == "99.9"
    assert heat(0.37, False)[0] == "37"
    assert heat(None, False) == ("?", "warning")
    shades = [heat(share, False)[1] for share in (0.0, 0.1, 0.3, 0.6, 0.8)]
    assert shades == ["dim", "heat1", "heat2", "heat3", "heat4"]


def test_a_heat_map_is_each_row_against_each_column() -> None:
    overlap = Overlap(
        ("base", "a", "b", "c"),
        (100, 50, 50, 80),
        (4, 2, 2, 3),
        ((100, 10, 10, None), (10, 50, 50, None), (10, 50, 50, None), (None,) * 4),
        ((4, 1, 1, None), (1, 2, 2, None), (1, 2, 2, None), (None,) * 4),
    )
    table = overlap_store(overlap, {"a": "A", "b": "A"}, {"a", "b"}, "base")
    assert [column.title for column in table.columns[1:]] == ["base", "a", "b", "c"]
    cell = lambda row, column: table.columns[column + 1].paint(row, 7)  # type: ignore[misc]  # noqa: E731
    assert cell(1, 2) == [(" =100 ", "conflict")] or text_of(cell(1, 2)).strip() == "=100"
    assert cell(1, 2)[0][1] == "conflict"
    assert text_of(cell(0, 1)).strip() == "10"
    assert text_of(cell(1, 0)).strip() == "20"
    assert text_of(cell(3, 0)).strip() == "?"
    faults = [
        (r, c) for c in range(4) for r in range(4) if r in (table.columns[c + 1].faults or ())
    ]  # type: ignore[misc]
    assert faults == [(2, 1), (1, 2)]


def test_a_hundred_thousand_rows() -> None:
    rng = random.Random(0)
    values = [rng.random() for _ in range(100_000)]
    names = [f"layers.{n}" for n in range(100_000)]
    table = Store((Column("v", "v", values),), names)
    table.sort("v", descending=True)
    table.narrow(parse("99", ()))
    wanted = sorted((n for n in range(100_000) if "99" in names[n]), key=lambda n: -values[n])
    assert table.view == wanted


def test_what_diff_compares_by_itself() -> None:
    assert next_pair(State()) is None
