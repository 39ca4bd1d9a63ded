"""The app in a real terminal: tmux draws, keys are pressed, the screen is read."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import build
import pytest
from driving import SAMPLES, sizes
from terminal import ENDED, Terminal

ROOT = SAMPLES.parent

# A key is answered within this, however busy the machine that runs the tests is.
ANSWER = 20
# Of the 256 colours those without a hue: the ramp, and the corners and diagonal of the cube.
GREYS = {str(n) for n in (*range(232, 256), 0, 7, 8, 15, *range(16, 232, 43))}


@sizes
def test_the_founding_bug(size: tuple[int, int]) -> None:
    with Terminal("tui", "samples/copied", size=size, cwd=ROOT) as terminal:
        terminal.see("✗ FAIL", "4 schemes carry one set of weights")
        # A row may be on its way to the terminal when the screen is read.
        shown = terminal.wait(lambda text: text.count("A ×4") == 4, "A ×4 in four rows")
        assert max(map(len, shown.splitlines())) <= size[0]
        terminal.press("2")
        terminal.see("104 mismatches", "!FP8", "CK301")
        terminal.press("n")
        terminal.press("Enter")
        terminal.see("recipe", "contradict each other")
        terminal.press("Escape")
        terminal.see("104 mismatches")
        terminal.press("3")
        terminal.see("=100", "identical")
        terminal.press("Enter")
        terminal.see("the same, byte for byte")
        terminal.press("1")
        terminal.press("?")
        terminal.see("A grid.", "Keys")
        terminal.press("Escape")
        terminal.see("CK501", gone=("A grid.",))
        terminal.press("y")
        terminal.see("copied: ckptdiff check")
        ended = terminal.quit()
        assert "✗ FAIL" not in ended  # the screen of before is back


def test_typing_a_filter() -> None:
    with Terminal("tui", "samples/copied", cwd=ROOT) as terminal:
        terminal.see("A ×4")
        terminal.press("2")
        terminal.see("49 of 49")
        terminal.press("/")
        terminal.press("down_proj")
        terminal.see("7 of 49")
        terminal.press("Escape")
        terminal.see("49 of 49")
        terminal.quit()


def test_the_palette() -> None:
    with Terminal("tui", "samples/copied", cwd=ROOT) as terminal:
        terminal.see("A ×4")
        terminal.press(":")
        terminal.see("Layers (2)")
        terminal.press("modules x schemes")
        terminal.see("modules x schemes", "Layers (2)", gone=("Quit (q)",))
        terminal.press("Enter")
        terminal.see("49 of 49")
        terminal.quit()


@pytest.mark.parametrize("key", ["C-c", "C-q"])
def test_leaving_by_other_keys(key: str) -> None:
    with Terminal("tui", "samples/copied", cwd=ROOT) as terminal:
        terminal.see("A ×4")
        terminal.press("/")
        terminal.press(key)  # also while somebody types
        terminal.see(f"{ENDED} 0")


def test_without_colour_and_in_light() -> None:
    with Terminal("tui", "samples/copied", "--theme", "light", cwd=ROOT,
                  env={"NO_COLOR": "1"}) as terminal:  # fmt: skip
        terminal.see("✗ FAIL", "A ×4")
        terminal.wait(lambda text: text.count("✗ error") >= 4, "an error in four rows")
        colours = terminal._tmux("capture-pane", "-p", "-e", "-t", "t")
        found = set(re.findall(r"[34]8;5;(\d+)", colours))
        assert found
        assert found <= GREYS
        assert not re.search(r"\x1b\[(?:\d+;)*(?:3[1-6]|4[1-6]|9[1-6])(?:;\d+)*m", colours)
        terminal.quit()


def test_a_root_that_is_deleted_while_it_is_open(sweep: Path) -> None:
    with Terminal("tui", sweep) as terminal:
        terminal.see("✓ PASS", "no two have the same weights")
        shutil.rmtree(sweep)
        terminal.see("is not there", "shown as it was before")
        for key in ("2", "j", "Enter", "3", "4", "1", "Enter", "R"):
            terminal.press(key)
        terminal.press("?")
        terminal.see("Here", "Keys", seconds=ANSWER)
        terminal.press("Escape")
        shown = terminal.see("shown as it was before", gone=("Keys",))
        assert "defect" not in shown
        terminal.quit()


def test_a_scheme_that_changes_while_it_is_open(sweep: Path) -> None:
    with Terminal("tui", sweep) as terminal:
        terminal.see("✓ PASS", "no two have the same weights")
        build.copy_weights(sweep, 100, (10, 30, 50))
        terminal.see("4 schemes carry one set of weights", "3 changed")
        terminal.quit()


def test_no_terminal_is_said_before_the_app_starts(sweep: Path) -> None:
    from command import run

    done = run("tui", sweep)
    assert done.code == 2
    assert "not a terminal" in done.err
    done = run("tui", sweep / "nothing")
    assert done.code == 2
    assert "is not there" in done.err


# Ten schemes of 90,000 tensors


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten MoE-like schemes of 90,000 tensors and 31 GB each, of which the disk has headers."""
    root = tmp_path_factory.mktemp("large")
    entries: dict[str, object] = {}
    offset = 0
    for number in range(30_000):
        layer, expert = divmod(number // 3, 256)
        leaf = ("up_proj", "gate_proj", "down_proj")[number % 3]
        module = f"model.layers.{layer}.mlp.experts.{expert}.{leaf}"
        for name, dtype, shape, nbytes in (
            ("weight", "F8_E4M3", [1024, 1024], 1 << 20),
            ("weight_scale", "F32", [], 4),
            ("input_scale", "F32", [], 4),
        ):
            end = offset + nbytes
            entries[f"{module}.{name}"] = {
                "dtype": dtype, "shape": shape, "data_offsets": [offset, end]
            }  # fmt: skip
            offset = end
    raw = json.dumps(entries, separators=(",", ":")).encode()
    assert len(entries) == 90_000
    for percent in range(10, 101, 10):
        path = root / f"fp8_all_layers_top{percent}_coco2017"
        path.mkdir()
        with (path / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            file.truncate(8 + len(raw) + offset)
        build.write_json(path / "config.json", build.config())
    used = subprocess.run(["du", "-sk", root], capture_output=True, check=True).stdout
    assert int(used.split()[0]) < 400_000  # kB: the files are sparse
    return root


@pytest.mark.timeout(900)  # it reads 900,000 entries of headers, twice
def test_keys_are_answered_while_a_large_sweep_is_read(large: Path) -> None:
    with Terminal("tui", large, "--no-watch") as terminal:
        terminal.see("1 Sweep", seconds=ANSWER)
        # While headers are read and judged, and then while tensors are hashed.
        for _ in range(4):
            terminal.press("?")
            terminal.see("A grid.", seconds=ANSWER)
            terminal.press("Escape")
            terminal.see("1 Sweep", gone=("A grid.",), seconds=ANSWER)
        terminal.see("10 schemes", "hashing", seconds=240)
        for key, word in (("j", "top20"), ("j", "top30"), ("k", "top20")):
            terminal.press(key)
            terminal.see(f"_{word}_", seconds=ANSWER)
        terminal.press("2")
        terminal.see("of 30,000", seconds=240)
        terminal.press("/")
        terminal.press("experts.17.up")
        terminal.see("39 of 30,000", seconds=ANSWER)
        terminal.press("Escape")
        terminal.see("30,000 of 30,000", seconds=ANSWER)
        terminal.press("End")
        terminal.see("layers.39.mlp.experts.15", seconds=ANSWER)
        terminal.press("NPage")
        terminal.press("3")
        terminal.see("waiting for hashes", seconds=ANSWER)
        # Leaving waits for no thread.
        terminal.press("q")
        terminal.see(f"{ENDED} 0", seconds=ANSWER)


def test_it_can_be_stopped_and_comes_back() -> None:
    """ctrl+z, as in any program of a terminal; the shell's fg shows it again."""
    with Terminal("tui", "samples/copied", cwd=ROOT) as terminal:
        terminal.see("A ×4")
        child = terminal.child()
        terminal.press("C-z")
        terminal.wait(lambda text: state_of(child) == "T", "a stopped process")
        os.kill(child, signal.SIGCONT)
        terminal.see("A ×4", "✗ FAIL")
        terminal.press("2")
        terminal.see("49 of 49")
        terminal.quit()


def state_of(process: int) -> str:
    """The letter that Linux has for what a process does."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
