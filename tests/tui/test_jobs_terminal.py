"""Re-exports in a real terminal: repaired, cancelled, left, with a donor and by ModelOpt."""

from __future__ import annotations

from pathlib import Path

import pytest
from repairing import BASELINE, NAME, PROVENANCE, SWEEP, WHOLE, broken_sweep, children, files
from terminal import ENDED, Terminal

SIZES = [(80, 24), (160, 50)]
sizes = pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x50"])
# Seconds: a child imports torch, on a machine that may be busy.
CHILD = 240


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return broken_sweep(tmp_path)


def plan_with(terminal: Terminal, donor: Path) -> None:
    """Mark the first scheme, open its plan and name a donor."""
    terminal.see("A ×4", "✗ FAIL")
    terminal.press("Space")
    terminal.see("●")
    terminal.press("e")
    terminal.see("Re-export of 1 scheme", "modelopt: chosen because")
    terminal.press("Down")
    terminal.press("Down")
    terminal.press("Space")
    terminal.see("A checkpoint of the same family")
    terminal.press(str(donor))
    terminal.press("Enter")
    terminal.see(donor.name[-10:], gone=("A checkpoint of the same family", "planning"))


@sizes
def test_the_founding_bug_is_repaired(copied: Path, size: tuple[int, int]) -> None:
    first = copied / NAME.format(10)
    with Terminal("tui", copied, size=size) as terminal:
        plan_with(terminal, WHOLE)
        terminal.see("possible: 1 scheme", "compose: calibration does not", "7 modules to FP8")
        terminal.press("Up")
        terminal.press("Right")
        terminal.see("in its place", ".broken-N")
        terminal.press("Enter")
        shown = terminal.see("✓ done", "✓ written", "fingerprint ckptdiff1:", "prove:")
        assert max(map(len, shown.splitlines())) <= size[0]
        terminal.press("1")
        # It is well, three have one set of weights still, and the cursor is on the next of them.
        terminal.see("✓ ok", "3 schemes carry one set of weights", "1 safe to use")
        terminal.see(f"✗ error {NAME.format(30)}" if size[0] > 80 else "layers_top30_captions")
        terminal.press("e")
        terminal.see("Re-export of 3 schemes")
        terminal.press("Escape")
        terminal.see("3 schemes carry", gone=("Re-export of",))
        terminal.quit()
    written = files(first)
    written.pop(PROVENANCE)
    assert written == files(SWEEP / first.name)


def test_the_plan_says_what_is_missing(copied: Path) -> None:
    before = files(copied)
    with Terminal("tui", copied) as terminal:
        plan_with(terminal, BASELINE)
        terminal.press("Up")
        terminal.press("Up")
        terminal.press("Right")
        terminal.see("cannot: 1 of 1 scheme", "missing 2 modules:", "visual.merger.mlp.2",
                     "model.layers.0.self_attn.o_proj")  # fmt: skip
        terminal.press("Enter")
        terminal.see("the plan lacks")
        terminal.press("Escape")
        terminal.see("A ×4", gone=("Re-export of 1",))
        terminal.quit()
    assert files(copied) == before


def test_read_only_and_nothing_is_repaired(copied: Path) -> None:
    with Terminal("tui", copied, "--read-only", size=(160, 50)) as terminal:
        terminal.see("A ×4")
        terminal.press("e")
        terminal.see("--read-only:")  # and why, over several lines
        terminal.quit()


def start_modelopt(terminal: Terminal) -> int:
    """Start an export by ModelOpt and wait for its child; the process of the app."""
    terminal.see("A ×4")
    terminal.press("Space")
    terminal.see("●")
    terminal.press("e")
    terminal.see("modelopt: chosen because")
    terminal.press("Right")
    terminal.see("cannot: 1 of 1")
    terminal.press("Right")
    terminal.see("modelopt: was asked for")
    terminal.press("Enter")
    terminal.see("… running", "import")
    app = terminal.child()
    terminal.wait(lambda _: bool(children(app)), "a child")
    return app


@pytest.mark.timeout(900)
def test_modelopt_is_cancelled_in_the_middle(copied: Path) -> None:
    before = files(copied)
    with Terminal("tui", copied) as terminal:
        app = start_modelopt(terminal)
        # Keys are answered meanwhile.
        terminal.press("2")
        terminal.see("104 mismatches")
        terminal.press("6")
        terminal.see("… running")
        terminal.press("x")
        terminal.see("Cancel the re-export of top10?", "thrown away")
        terminal.press("Enter")
        terminal.see("! cancelled", "nothing was changed")
        assert not children(app)
        terminal.quit()
    assert files(copied) == before


@pytest.mark.timeout(900)
def test_the_app_is_left_in_the_middle(copied: Path) -> None:
    before = files(copied)
    with Terminal("tui", copied) as terminal:
        app = start_modelopt(terminal)
        (child,) = children(app)
        terminal.press("q")
        terminal.see("Leave, and cancel what runs?", "re-export of top10")
        terminal.press("Escape")
        terminal.see("… running", gone=("Leave, and",))
        terminal.press("q")
        terminal.see("Leave, and cancel what runs?")
        terminal.press("Enter")
        terminal.see(f"{ENDED} 0")
        assert not Path(f"/proc/{child}").exists()
    assert files(copied) == before


@pytest.mark.timeout(900)
def test_modelopt_repairs_a_scheme(copied: Path) -> None:
    with Terminal("tui", copied) as terminal:
        start_modelopt(terminal)
        terminal.see("✓ done", "✓ written", "took import", seconds=CHILD)
        terminal.press("1")
        terminal.see("5 schemes", "1 safe to use")
        terminal.quit()
    assert (copied / f"{NAME.format(10)}_v2" / PROVENANCE).is_file()
