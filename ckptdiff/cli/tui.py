"""`ckptdiff tui`: the app, in a terminal or served to a browser on this machine."""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click

from ckptdiff.cli.options import PATH, base_option, config_option
from ckptdiff.errors import CapabilityError, RootError, UsageError


@click.command("tui")
@click.argument("root", default=".", type=PATH)
@base_option
@config_option
@click.option("--theme", type=click.Choice(["dark", "light"]), default="dark", show_default=True)
@click.option("--watch/--no-watch", default=True, help="Look again when a scheme changes.")
@click.option(
    "--read-only", is_flag=True, help="No export, no repair; digests alone are remembered."
)
@click.option("--serve", is_flag=True, help="Serve it to a browser on this machine, read-only.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Of --serve. 0: any free.",
)
@click.option("--allow-write", is_flag=True, help="With --serve: let the browser write, too.")
def command(
    root: Path,
    base: Path | None,
    config: Path | None,
    theme: Literal["dark", "light"],
    watch: bool,
    read_only: bool,
    serve: bool,
    port: int,
    allow_write: bool,
) -> None:
    """Look at the sweep below ROOT in a terminal: verdict, layers, identity, differences.

    Headers are judged at once, hashes follow while you look. `?` shows every key, `y` copies
    the command that prints what is on screen.

    \b
    ckptdiff tui models/quantized
    ckptdiff tui models/quantized --base models/base --theme light
    ckptdiff tui models/quantized --serve
    """
    if allow_write and not serve:
        raise click.UsageError("--allow-write belongs to --serve: give both, or neither")
    if allow_write and read_only:
        raise click.UsageError("--allow-write and --read-only: give one of them")
    if not root.is_dir():
        raise RootError(f"{root} is not there, or no directory", "Check the path.")
    from ckptdiff.tui.state import Options

    options = Options(
        root=str(root),
        base=None if base is None else str(base),
        config=None if config is None else str(config),
        theme=theme,
        read_only=read_only or (serve and not allow_write),
        watch=watch,
    )
    if serve:
        _require_server()
        from ckptdiff.tui.serve import serve as run_server

        run_server(options, port)
        return
    if not os.environ.get("TEXTUAL_DRIVER"):  # set by the server, whose pipes are no terminal
        _require_terminal()
    # Nothing made up to the first frame is garbage, and looking for some costs 8 % of that time.
    # The bridge switches the collector on again after the first look.
    gc.disable()
    from ckptdiff.tui.app import run

    run(options)


def _require_server() -> None:
    """Raise `CapabilityError` when the extra that serves the app is not installed."""
    if find_spec("textual_serve") is None:
        raise CapabilityError(
            "textual_serve is not installed, which serving the app needs",
            "Install it: pip install 'ckptdiff[serve]'.",
        )


def _require_terminal() -> None:
    # Textual draws on stderr.
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError(
            "stdin, stdout or stderr is not a terminal, so the app cannot be shown",
            "Use `ckptdiff check` here, or `ckptdiff tui --serve` for a browser.",
        )
