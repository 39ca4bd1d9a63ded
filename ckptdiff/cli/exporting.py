"""Options of the commands that may export by ModelOpt."""

from __future__ import annotations

import click

from ckptdiff.cli.options import PATH_TEXT, gathered
from ckptdiff.records.export import ExportOptions

_DEFAULTS = ExportOptions()
# Given to the command as one `options` of type `ExportOptions`.
export_options = gathered(
    "options",
    ExportOptions,
    (
        click.option(
            "--preset",
            metavar="NAME",
            help="ModelOpt's. Default: the scheme's own; for a bare model FP8_DEFAULT_CFG.",
        ),
        click.option(
            "--calib",
            type=PATH_TEXT,
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
        click.option(
            "--seed",
            type=int,
            default=_DEFAULTS.seed,
            show_default=True,
            metavar="N",
            help="Draws the rows.",
        ),
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
    ),
)
