"""Names and manifests by somebody who wants the screen: shown as text, and in their columns."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from pathlib import Path

import build
import pytest
from driving import NARROW, WIDE, drive, lines, press, screen_text, until
from rich.cells import cell_len
from textual.pilot import Pilot

from ckptdiff.tui.actions import command_line
from ckptdiff.tui.widgets.grid import Grid

# An escape code, markup, wide characters, a flag, a skin tone, accents, right-to-left.
EVIL = "\x1b[2J[bold red]日本👍🏽🇩🇪e\u0301\u202e[/]"
DTYPES = ("FP8", "BF16", "!FP8", "!BF16")
EVIL_FILE = "[blink]日本👍🏽🇩🇪e\u0301\u202e[/]\x1b[2J"


def write(root: Path) -> Path:
    """A sweep of two schemes with such names, and a base."""
    module = f"model.layers.0.{EVIL}.up_proj"
    for percent in (10, 50):
        tensors = dict(build.fp8_tensors(build.SweepSpec().selected(percent)))
        tensors[f"{module}.weight"] = build.Spec("F8_E4M3", (16, 16), f"x{percent}")
        tensors[f"{module}.weight_scale"] = build.Spec("F32", (), "s")
        manifest = build.coverage_manifest(
            EVIL, percent, [*build.recipes(), f"{module}.quant_recipe"]
        )
        manifest["baseline_dir"] = EVIL
        build.write_scheme(
            root / "quantized" / f"{EVIL_FILE}top{percent}",
            tensors,
            manifest=manifest,
            baseline=build.baseline_manifest([*build.recipes(), f"{module}.quant_recipe"], EVIL),
        )
    build.write_base(root / "base")
    return root / "quantized"


def harmless(app: object, size: tuple[int, int]) -> None:
    for line in lines(app):
        assert cell_len(line) == size[0], repr(line)
        assert sum(map(cell_len, line)) == size[0], repr(line)
        assert not {c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")}


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "160x50"])
def test_nothing_in_a_name_does_anything(tmp_path: Path, size: tuple[int, int]) -> None:
    root = write(tmp_path)

    async def scenario(pilot: Pilot[None]) -> None:
        app = pilot.app
        harmless(app, size)
        assert "[blink]" in screen_text(app) or "top10" in screen_text(app)
        for key in (
            "enter", "end", "escape", "2", "end", "enter", "enter", "escape", "escape",
            "3", "enter", "1", "y", "m", "escape", "question_mark", "escape", "space", "slash",
        ):  # fmt: skip
            await press(pilot, key)
            harmless(app, size)
        await press(pilot, "[", "日")
        harmless(app, size)

    drive(root, scenario, size)


def test_columns_stay_where_they_are(tmp_path: Path) -> None:
    """Beside a wide name the other columns begin where they begin beside a plain one."""
    root = write(tmp_path)

    async def scenario(pilot: Pilot[None]) -> None:
        await press(pilot, "2")
        app = pilot.app
        grid = app.screen.query_one(Grid)
        assert grid.store is not None
        evil = next(n for n, key in enumerate(grid.store.keys) if "\x1b" in key)
        grid.move_to(grid.store.view.index(evil))
        await pilot.pause()
        rows = [grid.render_line(y) for y in range(1, grid.size.height)]
        starts = set()
        for strip in rows:
            cells, at = [], 0
            for segment in strip:
                cells.append((at, segment.text))
                at += segment.cell_length
            starts.add(tuple(at for at, text in cells if text.strip() in DTYPES))
        assert "\\u202e[/].up_proj" in "".join(strip.text for strip in rows)
        starts.discard(())  # lines below the last row
        assert len(starts) == 1
        assert len(starts.pop()) == 2  # a cell for each scheme, whatever the module is called

    drive(root, scenario, WIDE)


def test_a_notice_is_no_markup(tmp_path: Path) -> None:
    root = write(tmp_path)

    async def scenario(pilot: Pilot[None]) -> None:
        await press(pilot, "y")
        await until(pilot, lambda: "copied: ckptdiff check" in screen_text(pilot.app))

    drive(root, scenario, WIDE)


@pytest.mark.parametrize(
    "name", ["a b", "it's", "\x1b[201~\x15rm x\n", "\u202eback\\slash'\t", "漢\x07", "\udcff!$x"]
)
def test_a_copied_command_holds_no_key(name: str) -> None:
    """Pasted into a terminal it is text alone, and a shell reads the very name."""
    line = command_line(("diff", name, "b"))
    assert line.isprintable()
    script = f"printf '%s' {line.removeprefix('ckptdiff diff ').removesuffix(' b')}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stdout == os.fsencode(name)
