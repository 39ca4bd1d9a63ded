"""`ckptdiff completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ckptdiff.cli.output import write_stdout


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    eval "$(ckptdiff completion bash)"                          # in ~/.bashrc
    eval "$(ckptdiff completion zsh)"                           # in ~/.zshrc
    ckptdiff completion fish > ~/.config/fish/completions/ckptdiff.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(context.find_root().command, {}, "ckptdiff", "_CKPTDIFF_COMPLETE")
    write_stdout(completion.source().encode("utf-8") + b"\n")
