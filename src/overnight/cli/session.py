"""What a command works with: the options, the console, and a client made on first use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from overnight.cli.console import Console
from overnight.cli.options import Options, resolve
from overnight.cli.views import Screen

if TYPE_CHECKING:
    from overnight.client import Client, Exchange

P = ParamSpec("P")
R = TypeVar("R")


class Session:
    """One run of one command."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        self.options: Options = resolve(ctx)
        self.console = Console(self.options)
        if not self.options.color:
            ctx.color = False

    @cached_property
    def client(self) -> Client:
        """The connection to the server; closed when the command ends."""
        from overnight.client import Client

        client = Client(self.options.url, self.options.api_key, observe=self._observer())
        self._ctx.call_on_close(client.close)
        return client

    @cached_property
    def screen(self) -> Screen:
        return Screen(self.console, self.options)

    def _observer(self) -> Callable[[Exchange], None] | None:
        if not self.options.verbose:
            return None

        def show(exchange: Exchange) -> None:
            status = exchange.status or "no answer"
            self.console.say(f"{exchange.method} {exchange.url} {status} {exchange.seconds * 1000:.0f} ms")

        return show


def pass_session(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Hand the session to a command as its first argument."""

    @wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(Session(click.get_current_context()), *args, **kwargs)

    return command
