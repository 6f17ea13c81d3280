"""All that a command says: data to stdout, conversation to stderr, and nothing printed elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import click

from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError
from overnight.cli.options import Options
from overnight.cli.table import Heading, lay_out

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: exact in a pipe, pleasant on a terminal."""

    name: str
    exact: Callable[[T], str]
    pleasant: Callable[[T], str] | None = None
    right: bool = False
    wraps: bool = False

    def on_terminal(self, row: T) -> str:
        return (self.pleasant or self.exact)(row)


def count_column(name: str, count: Callable[[T], int]) -> Column[T]:
    """Give a column of whole numbers."""
    return Column(name, lambda row: str(count(row)), lambda row: f"{count(row):,}", right=True)


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """How one kind of object is shown in each of the three shapes; the first column is its id."""

    columns: tuple[Column[T], ...]
    raw: Callable[[T], bytes]


class Console:
    """Speaks for one command."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.out_is_terminal = sys.stdout.isatty()
        self.err_is_terminal = sys.stderr.isatty()

    # --- conversation ------------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """Tell a person something, unless `--quiet`."""
        if not self._options.quiet:
            sys.stdout.flush()  # in the order in which it was said
            click.echo(text, err=True)

    def suggest(self, hint: str) -> None:
        """Name the next step, to a person only: a log has no next step."""
        if self.err_is_terminal:
            self.say(f"{self.paint('hint:', 'cyan')} {hint}")

    def paint(self, text: str, color: str) -> str:
        """Colour a word of the conversation; the word says the same without it."""
        colored = self._options.color and self.err_is_terminal
        return click.style(text, fg=color, bold=True) if colored else text

    def confirm(self, question: str) -> None:
        """Go on after a yes; without a terminal there is nobody to ask."""
        if self._options.yes:
            return
        if not (sys.stdin.isatty() and self.err_is_terminal):
            hint = "`--yes` answers it, there is no terminal to ask on"
            raise CliError(f"this needs an answer: {question}", hint, ExitCode.USAGE)
        if not click.confirm(question, err=True):
            raise CliError("nothing was changed", None, ExitCode.FAILED)

    # --- data --------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Pass bytes on as they are."""
        sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Let a reader in a pipe see what was written so far."""
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """Print one line of data."""
        click.echo(text, color=self._options.color and None)

    def rows(self, shape: Shape[T], rows: Iterable[T]) -> None:
        """Show several objects: JSON lines, ids, a table, or tab-separated."""
        if self._options.json is not None or self._options.quiet:
            for row in rows:
                self._machine(shape, row)
        elif self.out_is_terminal:
            self._table(shape, list(rows))
        else:
            for row in rows:
                self.line("\t".join(_flat(column.exact(row)) for column in shape.columns))

    def record(self, shape: Shape[T], row: T) -> None:
        """Show one object in full: JSON, its id, or one field a line."""
        if self._options.json is not None or self._options.quiet:
            self._machine(shape, row)
        elif self.out_is_terminal:
            width = max(len(column.name) for column in shape.columns)
            for column in shape.columns:
                if text := column.on_terminal(row):
                    self.line(f"{column.name:<{width}}   " + text.replace("\n", f"\n{'':<{width}}   "))
        else:
            for column in shape.columns:
                self.line(f"{column.name}\t{_flat(column.exact(row))}")

    def _machine(self, shape: Shape[T], row: T) -> None:
        if self._options.json is None:
            self.line(shape.columns[0].exact(row))
        else:
            self.write(choose_fields(shape.raw(row), self._options.json) + b"\n")

    def _table(self, shape: Shape[T], rows: Sequence[T]) -> None:
        if not rows:
            return
        headings = [Heading(each.name, right=each.right, wraps=each.wraps) for each in shape.columns]
        cells = [[_flat(each.on_terminal(row)) for each in shape.columns] for row in rows]
        first, *others = lay_out(headings, cells, shutil.get_terminal_size().columns)
        self.line(click.style(first, bold=True) if self._options.color else first)
        for line in others:
            self.line(line)


def choose_fields(raw: bytes, fields: tuple[str, ...]) -> bytes:
    """Give the object on one line: whole and untouched, or only some of its fields."""
    import msgspec

    if not fields:
        return msgspec.json.format(raw, indent=-1) if b"\n" in raw else raw
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    missing = [name for name in fields if name not in members]
    if missing:
        hint = "there are " + ",".join(members)
        raise CliError(f"no field `{missing[0]}` for `--json=`", hint, ExitCode.USAGE)
    return msgspec.json.encode({name: members[name] for name in fields})


def _flat(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ")
