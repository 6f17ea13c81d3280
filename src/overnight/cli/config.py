"""`overnight config …`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import click

from overnight.cli.commands import Group
from overnight.cli.console import Column, Shape
from overnight.cli.service_options import service_options
from overnight.cli.session import Session, pass_session


class Setting(NamedTuple):
    """One setting, its value as text, and where the value comes from."""

    name: str
    value: object
    source: str


def _encoded(setting: Setting) -> bytes:
    import msgspec

    return msgspec.json.encode(setting._asdict())


def _text(value: object) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


NAME: Column[Setting] = Column("setting", lambda each: each.name)
VALUE: Column[Setting] = Column("value", lambda each: _text(each.value), wraps=True)
SOURCE: Column[Setting] = Column("source", lambda each: each.source)


@click.group(
    cls=Group,
    examples=("overnight config show", "overnight config show --sources", "overnight config path"),
    details="Flags win over the environment, the environment over the settings file, the file over the defaults.",
)
def config() -> None:
    """Show the settings and where each comes from."""


@config.command(
    examples=(
        "overnight config show --sources",
        "overnight config show --upstream http://localhost:8000/v1",
        "overnight config show --json=name,value",
    ),
    details="Shows the settings of the service, and the URL that the other commands talk to. Keys are never shown.",
)
@click.option("--sources", is_flag=True, help="Say where each value comes from")
@service_options
@pass_session
def show(session: Session, sources: bool, flags: Mapping[str, object]) -> None:
    """Print every setting."""
    from overnight.config import load

    loaded = load(flags)
    values = loaded.settings.model_dump(mode="json")
    settings = [Setting(name, value, loaded.sources[name]) for name, value in values.items()]
    columns = (NAME, VALUE, SOURCE) if sources else (NAME, VALUE)
    session.console.rows(Shape(columns, _encoded), [*settings, *_of_the_client(session)])


@config.command(examples=("overnight config path", 'cat "$(overnight config path)"'))
@pass_session
def path(session: Session) -> None:
    """Print the path of the settings file that is read."""
    from overnight.config import config_path

    found = config_path()
    session.console.line(str(found))
    if not found.exists():
        session.console.say("there is no such file; the defaults apply")


def _of_the_client(session: Session) -> list[Setting]:
    options = session.options
    return [
        Setting("url", options.url, options.url_source),
        Setting("api_key", "set" if options.api_key else "not set", options.api_key_source),
    ]
