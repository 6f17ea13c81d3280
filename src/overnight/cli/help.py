"""`overnight help`: commands at length, and the topics that belong to no command."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import click

from overnight.cli.commands import Command, Group, unknown, write_help
from overnight.cli.error_guide import SECTIONS
from overnight.cli.exit_codes import MEANING
from overnight.cli.failures import CliError
from overnight.cli.options import DEFAULT_URL

ENVIRONMENT: Mapping[str, str] = {
    "OVERNIGHT_URL": f"Base URL of the API, as `--url` [default: {DEFAULT_URL}]",
    "OPENAI_BASE_URL": "The same, where OVERNIGHT_URL is not set",
    "OVERNIGHT_API_KEY": "API key, as `--api-key`",
    "OPENAI_API_KEY": "The same, where OVERNIGHT_API_KEY is not set",
    "NO_COLOR": "Any value: no colours, as `--no-color`",
    "OVERNIGHT_…": "Settings of the service; `overnight config show --sources` names each and says where it comes from",
}


@click.command(
    "help",
    cls=Command,
    examples=("overnight help run", "overnight help batches create", "overnight help exit-codes"),
    details="The topics are `environment`, `exit-codes` and `errors`; anything else is the name of a command.",
)
@click.argument("topic", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, topic: tuple[str, ...]) -> None:
    """Explain a command, the environment, the exit codes or the errors."""
    page = TOPICS.get(" ".join(topic))
    text = page() if page else _command_page(ctx.find_root(), topic)
    click.echo_via_pager(text + "\n") if text.count("\n") > _screen_lines() else click.echo(text)


def environment_page() -> str:
    """List the variables that are read."""
    return _page({"Environment": ENVIRONMENT})


def exit_codes_page() -> str:
    """List the exit codes."""
    return _page({"Exit codes": {str(int(code)): meaning for code, meaning in MEANING.items()}})


def errors_page() -> str:
    """List the error codes, by where they turn up."""
    return _page(SECTIONS)


TOPICS: Mapping[str, Callable[[], str]] = {
    "environment": environment_page,
    "exit-codes": exit_codes_page,
    "errors": errors_page,
}


def _page(sections: Mapping[str, Mapping[str, str]]) -> str:
    formatter = click.HelpFormatter(max_width=100)
    for title, rows in sections.items():
        with formatter.section(title):
            formatter.write_dl(list(rows.items()), col_max=30)
    return formatter.getvalue().strip("\n")


def _command_page(root: click.Context, names: tuple[str, ...]) -> str:
    command, ctx = root.command, root
    for name in names:
        found = command.get_command(ctx, name) if isinstance(command, Group) else None
        if found is None:
            raise _unknown(command, ctx, name)
        command, ctx = found, click.Context(found, info_name=name, parent=ctx)
    formatter = ctx.make_formatter()
    assert isinstance(command, Command | Group)  # noqa: S101 - all of ours are
    write_help(command, ctx, formatter, long=True)
    return formatter.getvalue().rstrip("\n")


def _unknown(command: click.Command, ctx: click.Context, name: str) -> CliError:
    known = command.list_commands(ctx) if isinstance(command, Group) else []
    if ctx.parent is None:
        return unknown("topic", "overnight help", name, [*TOPICS, *known])
    return unknown("command", ctx.command_path, name, known)


def _screen_lines() -> int:
    import shutil
    import sys

    return shutil.get_terminal_size().lines if sys.stdout.isatty() else 1_000_000
