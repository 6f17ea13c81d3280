"""Commands as we write them: loaded when used, help with examples first, near misses suggested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError
from overnight.cli.options import GlobalOption, global_options, spell_out_json


class ReaderGone(Exception):
    """Nobody reads our output any more (`… | head`); click would end the process with exit code 1."""


class Command(click.Command):
    """A command with the global options, examples, and a longer text for `overnight help`."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - handed on to click
        examples: Sequence[str] = (),
        details: str = "",
        **kwargs: Any,  # noqa: ANN401 - handed on to click
    ) -> None:
        super().__init__(*args, **kwargs)
        self.help = _without_full_stop(self.help)
        self.examples = tuple(examples)
        self.details = details
        self.params.extend(global_options())

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_help(self, ctx, formatter)


class Group(click.Group):
    """A group of commands; those named in `lazy` are imported when they are used.

    Called without a command, it runs the one named in `alone`, or shows its help.
    """

    command_class = Command

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - handed on to click
        lazy: Mapping[str, tuple[str, str]] | None = None,
        panels: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[str] = (),
        details: str = "",
        alone: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - handed on to click
    ) -> None:
        super().__init__(*args, **{"invoke_without_command": True, **kwargs})
        self.lazy = dict(lazy or {})
        self.panels = panels
        self.alone = alone
        self.help = _without_full_stop(self.help)
        self.examples = tuple(examples)
        self.details = details
        self.params.extend(global_options())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return [*self.lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute = self.lazy[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - our own table
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spell_out_json(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not (ctx.resilient_parsing or name in self.list_commands(ctx) or name.startswith("-")):
            raise unknown("command", ctx.command_path, name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        if not ctx.args and not ctx._protected_args:  # noqa: SLF001 - click has no public name for it
            return self._invoke_alone(ctx)
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None

    def _invoke_alone(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        command = None if self.alone is None else self.get_command(ctx, self.alone)
        if command is None:
            click.echo(ctx.get_help(), color=ctx.color)
            return ExitCode.OK
        with command.make_context(self.alone, [], parent=ctx) as inner:
            return command.invoke(inner)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_help(self, ctx, formatter)

    def summary(self, ctx: click.Context, name: str) -> str:
        """Give the one line that stands for a command in a list, without importing it."""
        if name in self.lazy:
            return self.lazy[name][1]
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=90) if command else ""


def _without_full_stop(summary: str | None) -> str | None:
    # Docstrings are sentences; one line of help has no full stop.
    return summary.strip().removesuffix(".") if summary else summary


def unknown(said: str, parent: str, name: str, known: Sequence[str]) -> CliError:
    """Explain a name that does not exist, with the nearest one that does."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{parent} {near[0]}`?" if near else f"`{parent} --help` lists the commands"
    return CliError(f"there is no {said} `{parent} {name}`", hint, ExitCode.USAGE)


def write_help(
    command: Command | Group, ctx: click.Context, formatter: click.HelpFormatter, *, long: bool = False
) -> None:
    """Lay out the help of a command: three examples first; `long` adds what only some want to know."""
    command.format_usage(ctx, formatter)
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(command.help or "")
    if command.examples:
        with formatter.section("Examples"):
            for example in command.examples if long else command.examples[:3]:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
    if long and command.details:
        for paragraph in command.details.strip().split("\n\n"):
            formatter.write_paragraph()
            formatter.write_text(paragraph)
    if isinstance(command, Group):
        _write_commands(command, ctx, formatter)
    _write_options(command, ctx, formatter, long=long)


def _write_commands(group: Group, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    panels = group.panels or {"Commands": group.list_commands(ctx)}
    width = max(len(name) for name in group.list_commands(ctx))
    for title, names in panels.items():
        with formatter.section(title):
            rows = [(name.ljust(width), group.summary(ctx, name)) for name in names]
            formatter.write_dl(rows)


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, *, long: bool) -> None:
    shared = [each for each in command.get_params(ctx) if isinstance(each, GlobalOption)]
    own = [each for each in command.params if isinstance(each, click.Option) and each not in shared]
    records = [record for each in own if (record := each.get_help_record(ctx))]
    if records:
        with formatter.section("Options"):
            formatter.write_dl(records)
    if long or not ctx.parent:
        with formatter.section("Global options, before or after the command"):
            formatter.write_dl([record for each in shared if (record := each.get_help_record(ctx))])
        return
    names = " ".join(each.opts[0] for each in shared)
    formatter.write_paragraph()
    formatter.write_text(f"Global options: {names}")
    formatter.write_text(f"More: `overnight help {ctx.command_path.partition(' ')[2]}`")
