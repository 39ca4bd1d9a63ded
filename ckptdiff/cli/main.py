"""The `ckptdiff` command. Commands are imported when they are used, so `--help` is instant."""

from __future__ import annotations

from importlib import import_module

import click

from ckptdiff import __version__
from ckptdiff.cli.console import guarded

# name -> (module, what `ckptdiff --help` says of it)
COMMANDS = {
    "check": ("ckptdiff.cli.check", "Judge every scheme of a sweep: the gate for CI."),
    "scan": ("ckptdiff.cli.scan", "List schemes, sizes, dtypes and coverage from headers."),
    "layers": ("ckptdiff.cli.layers", "Show modules x schemes: dtypes against manifests."),
    "diff": ("ckptdiff.cli.diff", "Compare two checkpoints: what their tensors mean."),
    "hash": ("ckptdiff.cli.hash", "Fingerprint a checkpoint; write or verify a lock file."),
    "sweep": ("ckptdiff.cli.sweep", "Build the schemes of a ranking, each as it says."),
    "reexport": ("ckptdiff.cli.reexport", "Write broken schemes anew from donors and base."),
    "probe": ("ckptdiff.cli.probe", "Compare next-token logits: KL over coverage."),
    "tui": ("ckptdiff.cli.tui", "Look at a sweep in a terminal: the app."),
    "rule": ("ckptdiff.cli.rule", "Show the manual of a rule, or list all rules."),
    "doctor": ("ckptdiff.cli.doctor", "Show versions, devices and what extras would enable."),
    "completion": ("ckptdiff.cli.completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 nothing found, 1 findings, 2 not everything could be looked at "
    "or a usage error, 3 something optional is missing, 4 a child process failed, "
    "130 interrupted.",
)
@click.version_option(__version__, prog_name="ckptdiff")
def ckptdiff() -> None:
    """Find out whether quantized checkpoints are what they say they are.

    \b
    ckptdiff check models/quantized --base models/base
    ckptdiff scan models/quantized
    ckptdiff rule CK501
    """


def main() -> None:
    """Run the command line and leave with the exit code of the contract."""
    guarded(ckptdiff)
