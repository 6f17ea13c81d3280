"""The options that every command accepts, before or after its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

DEFAULT_URL = "http://127.0.0.1:8080/v1"
URL_VARIABLES = ("OVERNIGHT_URL", "OPENAI_BASE_URL")
API_KEY_VARIABLES = ("OVERNIGHT_API_KEY", "OPENAI_API_KEY")

_META = "overnight.options"


class GlobalOption(click.Option):
    """An option of every command; the help of a command names these on one line only."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        # `--json[=FIELDS]` takes its value after `=` only.
        return (record[0].replace(" [=", "[="), record[1]) if record else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The global options after flags, environment and defaults."""

    url: str
    url_source: str
    api_key: str | None = field(repr=False)
    api_key_source: str
    json: tuple[str, ...] | None
    """None: no JSON; empty: the whole object; else these fields of it."""
    quiet: bool
    verbose: bool
    color: bool
    progress: bool
    yes: bool


def global_options() -> list[click.Parameter]:
    """Make a fresh set of the global options for one command."""
    return [
        _option("--url", metavar="URL", help=f"Base URL of the API [default: {DEFAULT_URL}]"),
        _option("--api-key", metavar="KEY", help="API key; better kept in OVERNIGHT_API_KEY"),
        _option("--json", metavar="[=FIELDS]", help="Print the API's JSON, one object per line"),
        _option("-q", "--quiet", is_flag=True, help="Print ids or data only, and errors"),
        _option("-v", "--verbose", is_flag=True, help="Show each HTTP call, and tracebacks"),
        _option("--no-color", is_flag=True, help="No colours (as NO_COLOR does)"),
        _option("--no-progress", is_flag=True, help="No progress lines"),
        _option("--yes", "-y", is_flag=True, help="Answer every question with yes"),
    ]


def resolve(ctx: click.Context, environment: Mapping[str, str] | None = None) -> Options:
    """Read the options that were given on any level of the command."""
    env = os.environ if environment is None else environment
    given: dict[str, Any] = ctx.meta.get(_META, {})
    url, url_source = _first("--url", given.get("url"), URL_VARIABLES, env)
    api_key, api_key_source = _first("--api-key", given.get("api_key"), API_KEY_VARIABLES, env)
    return Options(
        url=url or DEFAULT_URL,
        url_source=url_source,
        api_key=api_key,
        api_key_source=api_key_source,
        json=_fields(given.get("json")),
        quiet=bool(given.get("quiet")),
        verbose=bool(given.get("verbose")),
        color=not (given.get("no_color") or wants_no_color(env)),
        progress=not given.get("no_progress"),
        yes=bool(given.get("yes")),
    )


def wants_no_color(environment: Mapping[str, str]) -> bool:
    """Follow the convention of no-color.org, and spare terminals that know no colours."""
    return bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"


def spell_out_json(args: list[str]) -> list[str]:
    """Write a bare `--json` as `--json=`, so that it never swallows the argument after it."""
    end = args.index("--") if "--" in args else len(args)
    return ["--json=" if arg == "--json" else arg for arg in args[:end]] + args[end:]


def _option(*names: str, **attributes: Any) -> GlobalOption:  # noqa: ANN401 - handed on to click
    return GlobalOption(list(names), expose_value=False, callback=_remember(), **attributes)


def _remember() -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:  # noqa: ANN401 - click's
        source = ctx.get_parameter_source(parameter.name or "")
        if source is click.core.ParameterSource.COMMANDLINE:
            ctx.meta.setdefault(_META, {})[parameter.name] = value
        return value

    return callback


def _first(flag: str, given: str | None, variables: tuple[str, ...], env: Mapping[str, str]) -> tuple[str | None, str]:
    if given:
        return given, flag
    for name in variables:
        if env.get(name):
            return env[name], name
    return None, "default"


def _fields(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return tuple(name.strip() for name in given.split(",") if name.strip())
