"""Shell completion."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from api.cli.commands import Choice, argument, command

PROGRAM: Final = "bioscope"
COMPLETION_VARIABLE: Final = "_BIOSCOPE_COMPLETE"  # by which a shell asks the program for completions


@command(example='eval "$(bioscope completion bash)"')
@argument("shell", metavar="SHELL", type=Choice(["bash", "zsh", "fish"]), help="Your shell.")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for completion in your shell.

    It completes commands, options, choices and paths.

    \b
      bash  add to ~/.bashrc:                   eval "$(bioscope completion bash)"
      zsh   add to ~/.zshrc, after compinit:    eval "$(bioscope completion zsh)"
      fish  add to ~/.config/fish/config.fish:  bioscope completion fish | source
    """
    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(context.find_root().command, {}, PROGRAM, COMPLETION_VARIABLE).source())
