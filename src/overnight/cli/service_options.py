"""The settings of the service that commands accept as flags; only those that were given are passed on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

R = TypeVar("R")

LEVELS = ("debug", "info", "warning", "error")
OPTIONS = (
    click.option("--host", metavar="HOST", help="Address to listen on [default: 127.0.0.1]"),
    click.option("--port", metavar="PORT", type=click.IntRange(0, 65_535), help="Port; 0 takes a free one"),
    click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the data"),
    click.option("--upstream", "upstreams", metavar="URL", multiple=True, help="A model server; may be repeated"),
    click.option("--keys-file", metavar="FILE", type=click.Path(path_type=Path), help="API keys that are accepted"),
    click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings file (TOML)"),
    click.option("--log-level", type=click.Choice(LEVELS), help="Least level that is logged"),
    click.option("--log-format", type=click.Choice(("text", "json")), help="How log lines look"),
)


def service_options(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command the settings of the service; it gets those that were given as one `flags`."""
    names = ("host", "port", "data_dir", "upstreams", "keys_file", "config", "log_level", "log_format")

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - handed on
        found = {name: kwargs.pop(name) for name in names}
        flags = {name: value for name, value in found.items() if value not in (None, ())}
        return function(*args, flags=flags, **kwargs)

    wrapped: Callable[..., R] = command
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped
