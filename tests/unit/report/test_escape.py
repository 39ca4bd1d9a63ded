"""Text from strangers is shown harmlessly, and fits."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdiff.report.escape import fit, printable, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ümläut 模型", "ümläut 模型"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\rc", "a\\x0ab\\x0dc"),
        ("\u202eexe.", "\\u202eexe."),
        ("\ud800", "\\ud800"),
        ("\u200b", "\\u200b"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_nothing_hidden_gets_through(text: str) -> None:
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not {unicodedata.category(char) for char in printable(text)} & hidden


@given(st.text(st.characters(codec=None), max_size=60), st.integers(8, 40))
def test_fit_fills_its_columns(text: str, columns: int) -> None:
    assert width(fit(text, columns)) == columns


def test_fit_leaves_out_the_middle() -> None:
    shown = fit("fp8_autoquant_all_layers_top10_coco2017", 20)
    assert shown.startswith("fp8_") and "…" in shown and shown.endswith("coco2017")
