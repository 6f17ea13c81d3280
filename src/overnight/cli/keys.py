"""`overnight keys …` and `overnight resources …`: on the data folder itself, so the first key needs no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overnight import human
from overnight.cli.commands import Group
from overnight.cli.console import Column, Shape
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.domain.key import Key, Resource
    from overnight.services.keys import CreatedKey, KeyService

R = TypeVar("R")

SCOPES = ("read", "submit")
_DAY = 86_400
_WHERE = (
    "Works on the data folder itself, also while the service runs on it, which takes up changes within 5 seconds. "
    "Whoever may write the folder may make keys."
)


def _settings(data_dir: Path | None, config: Path | None) -> Settings:
    from overnight.config import load

    flags = {name: value for name, value in (("data_dir", data_dir), ("config", config)) if value is not None}
    return load(flags).settings


def _data_folder(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command the settings that say where the data folder is, as `settings`."""

    @click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the data")
    @click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings file (TOML)")
    @wraps(function)
    def command(*args: Any, data_dir: Path | None, config: Path | None, **kwargs: Any) -> R:  # noqa: ANN401 - handed on
        return function(*args, settings=_settings(data_dir, config), **kwargs)

    return command


def _work(settings: Settings, work: Callable[[KeyService], Awaitable[R]], *, new: bool = False) -> R:
    from overnight import bootstrap

    return bootstrap.with_keys(settings, work, new=new)


def _state(key: Key) -> str:
    import time

    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.valid(time.time()) else "expired"


def _shown(key: Key) -> dict[str, Any]:
    import msgspec

    return {name: value for name, value in msgspec.structs.asdict(key).items() if name != "hash"}


def _encoded(thing: object) -> bytes:
    import msgspec

    return msgspec.json.encode(thing)


KEYS: Shape[Key] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("resource", lambda each: each.resource),
        Column("begins with", lambda each: each.prefix),
        Column("scopes", lambda each: ",".join(each.scopes)),
        Column("state", _state),
        Column("created", lambda each: human.moment(each.created_at)),
        Column("expires", lambda each: human.moment(each.expires_at)),
        Column("last used", lambda each: human.moment(each.last_used_at)),
    ),
    lambda key: _encoded(_shown(key)),
)
CREATED: Shape[CreatedKey] = Shape(
    (Column("key", lambda each: each.secret),),
    lambda created: _encoded({**_shown(created.key), "key": created.secret}),
)
RESOURCES: Shape[Resource] = Shape(
    (
        Column("name", lambda each: each.name),
        Column("created", lambda each: human.moment(each.created_at)),
    ),
    _encoded,
)


@click.group(
    cls=Group,
    examples=(
        "overnight keys create --data-dir data",
        "overnight keys list",
        "overnight keys revoke key_1a2b",
    ),
    details=_WHERE,
)
def keys() -> None:
    """Create, list and revoke the API keys of a data folder."""


@keys.command(
    examples=(
        "overnight keys create",
        "overnight keys create --resource search --days 90",
        "export OVERNIGHT_API_KEY=$(overnight keys create -q --scope read)",
    ),
    details="Prints the key this once: only its hash is kept. With the first key the service stops taking calls "
    "without one.\n\n" + _WHERE,
)
@click.option("--resource", metavar="NAME", default="default", help="What it opens [default: default]")
@click.option("--scope", type=click.Choice(SCOPES), default="submit", help="What it may do [default: submit]")
@click.option("--days", metavar="N", type=click.IntRange(min=1), help="Days until it expires [default: never]")
@_data_folder
@pass_session
def create(session: Session, settings: Settings, resource: str, scope: str, days: int | None) -> None:
    """Create a key."""
    from overnight.domain.key import Scope
    from overnight.services.keys import NewKey

    new = NewKey(resource=resource, scopes=(Scope(scope),), life=None if days is None else days * _DAY)
    created = _work(settings, lambda service: service.create(new), new=True)
    session.console.rows(CREATED, [created])
    session.console.say(f"{created.key.id} opens {resource} in {settings.data_dir}; the key is not shown again")


@keys.command(
    "list",
    examples=("overnight keys list", "overnight keys list --resource search", "overnight keys list --json=id,prefix"),
    details=_WHERE,
)
@click.option("--resource", metavar="NAME", help="Only those that open this resource")
@_data_folder
@pass_session
def list_(session: Session, settings: Settings, resource: str | None) -> None:
    """List keys, oldest first."""
    found = _work(settings, lambda service: service.list(resource))
    session.console.rows(KEYS, found)
    if not found:
        session.console.say("no key yet; `overnight keys create` makes one")


@keys.command(
    examples=(
        "overnight keys revoke key_1a2b",
        "overnight keys revoke key_1a2b --yes",
        "overnight keys revoke key_1a2b --data-dir data",
    ),
    details="Within 5 seconds it opens nothing any more. This cannot be undone, so it asks first.\n\n" + _WHERE,
)
@click.argument("key_id", metavar="ID")
@_data_folder
@pass_session
def revoke(session: Session, settings: Settings, key_id: str) -> None:
    """Revoke a key."""
    session.console.confirm(f"revoke {key_id}?")
    session.console.rows(KEYS, [_work(settings, lambda service: service.revoke(key_id))])


@click.group(
    cls=Group,
    examples=(
        "overnight resources create search",
        "overnight resources create search --data-dir data",
        "overnight resources list",
    ),
    details="A resource owns files and batches; nobody sees those of another.\n\n" + _WHERE,
)
def resources() -> None:
    """Create and list the resources that keys open."""


@resources.command(
    "create",
    examples=("overnight resources create search", "overnight resources create search --data-dir data"),
    details=_WHERE,
)
@click.argument("name", metavar="NAME")
@_data_folder
@pass_session
def create_resource(session: Session, settings: Settings, name: str) -> None:
    """Create a resource."""
    session.console.rows(RESOURCES, [_work(settings, lambda service: service.create_resource(name), new=True)])
    session.console.suggest(f"`overnight keys create --resource {name}` makes a key that opens it")


@resources.command(
    "list",
    examples=("overnight resources list", "overnight resources list --json=name"),
    details=_WHERE,
)
@_data_folder
@pass_session
def list_resources(session: Session, settings: Settings) -> None:
    """List resources, oldest first."""
    session.console.rows(RESOURCES, _work(settings, lambda service: service.resources()))
