"""Options of the commands that may export by ModelOpt."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ckptdiff.cli.options import PATH
from ckptdiff.records.export import ExportOptions

_DEFAULTS = ExportOptions()
_OPTIONS = (
    click.option(
        "--preset", metavar="NAME", help="ModelOpt's, as FP8_DEFAULT_CFG. Default: as it was."
    ),
    click.option(
        "--calib",
        type=PATH,
        metavar="FILE",
        help="Calibration rows: .txt, .jsonl with text, messages or images, COCO captions as "
        ".json. Default: a few built-in prompts.",
    ),
    click.option(
        "--calib-samples",
        type=click.IntRange(1),
        default=_DEFAULTS.calib_samples,
        show_default=True,
        metavar="N",
        help="Use this many rows.",
    ),
    click.option(
        "--calib-length",
        type=click.IntRange(1),
        default=_DEFAULTS.calib_length,
        show_default=True,
        metavar="N",
        help="Use this many tokens of a row.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Draws the rows."),
    click.option(
        "--score",
        type=click.Choice(["gradient", "kl_div"]),
        default=_DEFAULTS.score,
        show_default=True,
        help="How autoquant tells how sensitive a layer is.",
    ),
    click.option(
        "--trust-remote-code", is_flag=True, help="Run the code that comes with the model."
    ),
)
_NAMES = ("preset", "calib", "calib_samples", "calib_length", "seed", "score", "trust_remote_code")


def export_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options, given to the command as one `options` of type `ExportOptions`."""

    @wraps(function)
    def gathered(**arguments: Any) -> None:
        chosen = {name: arguments.pop(name) for name in _NAMES}
        if isinstance(chosen["calib"], Path):
            chosen["calib"] = str(chosen["calib"])
        function(options=ExportOptions(**chosen), **arguments)

    command: Callable[..., None] = gathered
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
