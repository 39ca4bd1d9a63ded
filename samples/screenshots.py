"""Draws the pictures of the app: `python samples/screenshots.py [OUT]`.

Whole screens as SVG, of the founding bug (`copied/`) and of the same sweep as it should be,
into `samples/screenshots/` unless another directory is named. No clock and no absolute path is
in them, so the same version draws the same picture.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from driving import make, press, settle, until

from ckptdiff.tui.app import CkptdiffApp
from ckptdiff.tui.screens.sweep import SweepScreen

SAMPLES = Path(__file__).resolve().parent
SIZE = (104, 30)
# name -> (sweep, theme, size, keys)
PICTURES: dict[str, tuple[str, str, tuple[int, int], tuple[str, ...]]] = {
    "sweep": ("samples/copied", "dark", SIZE, ()),
    "sweep-healthy": ("samples/sweep", "dark", SIZE, ("j",)),
    "sweep-light": ("samples/copied", "light", (80, 24), ()),
    "layers": ("samples/copied", "dark", SIZE, ("2", "n", "n")),
    "identity": ("samples/copied", "dark", SIZE, ("3",)),
    "diff-base": ("samples/sweep", "dark", (124, 36), ("j", "j", "4")),
    "diff": ("samples/copied", "dark", SIZE, ("space", "space", "4")),
}


async def picture(name: str) -> str:
    """One screen as SVG, once everything in it is there."""
    root, theme, size, keys = PICTURES[name]
    app = make(root, theme=theme)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await press(pilot, *keys)
        screen = app.screen
        if isinstance(screen, SweepScreen):
            await until(pilot, lambda: _detailed(app, screen))
        await settle(pilot)
        return stable(app.export_screenshot(title=f"ckptdiff tui {root}"))


def _detailed(app: CkptdiffApp, screen: SweepScreen) -> bool:
    """Whether the documents of the scheme under the cursor are read."""
    return app.state.scheme in screen._details


def stable(svg: str) -> str:
    """Without the number that differs from run to run, and without fonts from elsewhere."""
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=SAMPLES / "screenshots")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(SAMPLES.parent)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for name in PICTURES:
            (out / f"{name}.svg").write_text(asyncio.run(picture(name)))


if __name__ == "__main__":
    main()
