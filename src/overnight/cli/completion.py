"""`overnight completion`: the script that teaches a shell our commands."""

from __future__ import annotations

import click

from overnight.cli.commands import Command

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_OVERNIGHT_COMPLETE"


@click.command(
    cls=Command,
    examples=(
        "overnight completion bash >> ~/.bashrc",
        "overnight completion zsh >> ~/.zshrc",
        "overnight completion fish > ~/.config/fish/completions/overnight.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101 - click knows all three
    click.echo(complete(ctx.find_root().command, {}, "overnight", VARIABLE).source())
