"""A probe that is run from the app in a real terminal, on the CPU."""

from __future__ import annotations

import re

import pytest
from driving import SAMPLES
from terminal import Terminal

ROOT = SAMPLES.parent
SECONDS = 240  # a child imports torch, on a machine that may be busy
DOTS = re.compile("[\u2801-\u28ff]")


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=["80x24", "160x50"])
@pytest.mark.timeout(600)
def test_a_probe_and_its_curve(size: tuple[int, int]) -> None:
    with Terminal("tui", "samples/sweep", size=size, cwd=ROOT) as terminal:
        terminal.see("✓ PASS", "no two have the same weights")
        terminal.press("5")
        shown = terminal.see("enter runs this:", "ckptdiff probe --sweep", "nothing yet")
        assert not DOTS.search(shown)
        for _ in range(4):
            terminal.press("Down")
        terminal.press("Right")
        terminal.see("‹ cpu ›", "--device cpu")
        terminal.press("Enter")
        terminal.see("… PROBE", "of 5 schemes")
        terminal.press("y")  # keys are answered meanwhile
        terminal.see("copied: ckptdiff probe")
        shown = terminal.see(
            "KL rises with coverage", "KL over % of modules rises", "5 of 5",
            gone=("so far", "… PROBE"), seconds=SECONDS,
        )  # fmt: skip
        assert len(DOTS.findall(shown)) > 10
        assert shown.count("✓ done") == 5
        assert max(map(len, shown.splitlines())) <= size[0]
        terminal.press("6")
        terminal.see("probe of 5 schemes")
        terminal.press("5")
        terminal.see("KL over % of modules")
        terminal.press("Enter")  # again, and stopped
        terminal.see("0 of 5 schemes")
        terminal.press("x")
        terminal.see("stopped by you")
        terminal.quit()
