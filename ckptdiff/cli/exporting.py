"""Options of the commands that may export by ModelOpt."""

from __future__ import annotations

import click

from ckptdiff.cli.options import PATH_TEXT, Option, gathered, trust_remote_code_option
from ckptdiff.records.export import ExportOptions

_DEFAULTS = ExportOptions()


def _number(field: str, kind: type[int] | click.IntRange, help: str) -> Option:
    """The option for a number of `ExportOptions`, with the default that it has there."""
    return click.option(
        f"--{field.replace('_', '-')}",
        type=kind,
        default=getattr(_DEFAULTS, field),
        show_default=True,
        metavar="N",
        help=help,
    )


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
        _number("calib_samples", click.IntRange(1), "Use this many rows."),
        _number("calib_length", click.IntRange(1), "Use this many tokens of a row."),
        _number("seed", int, "Draws the rows."),
        click.option(
            "--score",
            type=click.Choice(["gradient", "kl_div"]),
            default=_DEFAULTS.score,
            show_default=True,
            help="How autoquant tells how sensitive a layer is.",
        ),
        trust_remote_code_option,
    ),
)
