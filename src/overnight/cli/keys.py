"""`overnight keys …` and `overnight resources …`: on the data folder itself, so the first key needs no other."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overnight import human
from overnight.cli import caps
from overnight.cli.commands import Group
from overnight.cli.console import Column, Shape
from overnight.cli.folder import data_folder
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.domain.key import Key
    from overnight.domain.quota import Offer
    from overnight.services.keys import CreatedKey, KeyService, ListedResource

R = TypeVar("R")

SCOPES = ("read", "submit")
OFFERS = ("enterprise", "default", "credit-card", "msdn", "free")
_DAY = 86_400
MOST_DAYS = 36_500
_WHERE = (
    "Works on the data folder itself, also while the service runs on it, which takes up changes within 5 seconds. "
    "Whoever may write the folder may make keys."
)
_ABOUT_OFFERS = (
    "By its offer a resource gets the enqueued-token quotas of Azure's table, for the models that stand in it; the "
    "limits page of the reference has the table."
)


def _work(settings: Settings, work: Callable[[KeyService], Awaitable[R]], *, new: bool = False) -> R:
    from overnight.bootstrap.keys import with_keys

    return with_keys(settings, work, new=new)


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
        Column("prefix", lambda each: each.prefix),
        Column("scopes", lambda each: ",".join(each.scopes)),
        Column("state", _state),
        Column(
            "created", lambda each: human.moment(each.created_at), lambda each: human.ago(each.created_at, time.time())
        ),
        Column(
            "expires",
            lambda each: human.moment(each.expires_at),
            lambda each: human.until(each.expires_at, time.time()),
        ),
        Column(
            "last used",
            lambda each: human.moment(each.last_used_at),
            lambda each: human.ago(each.last_used_at, time.time()),
        ),
    ),
    lambda key: _encoded(_shown(key)),
)
CREATED: Shape[CreatedKey] = Shape(
    (Column("key", lambda each: each.secret),),
    lambda created: _encoded({**_shown(created.key), "key": created.secret}),
)
RESOURCES: Shape[ListedResource] = Shape(
    (
        Column("name", lambda each: each.name),
        Column(
            "created", lambda each: human.moment(each.created_at), lambda each: human.ago(each.created_at, time.time())
        ),
        Column("offer", lambda each: each.offer or ""),
        Column("from", lambda each: "key file" if each.in_file else ""),
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
        "overnight keys create --admin",
    ),
    details="Prints the key this once: only its hash is kept. With the first key the service stops taking calls "
    "without one. An admin key manages resources and keys under `/admin/`, and opens no files and batches.\n\n"
    + _WHERE,
)
@click.option("--resource", metavar="NAME", help="What it opens [default: default]")
@click.option("--scope", type=click.Choice(SCOPES), help="What it may do [default: submit]")
@click.option("--admin", is_flag=True, help="Make a key for the admin API, which opens no resource")
@click.option("--days", metavar="N", type=click.IntRange(1, MOST_DAYS), help="Days until it expires [default: never]")
@data_folder
@pass_session
def create(
    session: Session, settings: Settings, resource: str | None, scope: str | None, days: int | None, *, admin: bool
) -> None:
    """Create a key."""
    from overnight.domain.key import Scope
    from overnight.services.keys import NewKey

    if admin and (resource or scope):
        raise click.UsageError("--admin goes with neither --resource nor --scope: an admin key opens no resource")
    scopes = (Scope.ADMIN if admin else Scope(scope or Scope.SUBMIT),)
    new = NewKey(resource=resource, scopes=scopes, life=None if days is None else days * _DAY)
    created = _work(settings, lambda service: service.create(new), new=True)
    session.console.rows(CREATED, [created])
    opens = "manages resources and keys" if admin else f"opens {created.key.resource}"
    session.console.say(f"{created.key.id} {opens} in {settings.data_dir}; the key is not shown again")


@keys.command(
    "list",
    examples=("overnight keys list", "overnight keys list --resource search", "overnight keys list --json=id,prefix"),
    details=_WHERE,
)
@click.option("--resource", metavar="NAME", help="Only those that open this resource")
@data_folder
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
    details="ID is the id of the key, or a beginning of 8 characters or more that no other has, or what `keys list` "
    "shows as `prefix`. Within 5 seconds the key opens nothing any more. This cannot be undone, so it asks "
    "first.\n\n" + _WHERE,
)
@click.argument("key_id", metavar="ID")
@data_folder
@pass_session
def revoke(session: Session, settings: Settings, key_id: str) -> None:
    """Revoke a key."""
    found = _work(settings, lambda service: service.find(key_id))
    session.console.confirm(f"revoke {found.id}, which opens {found.resource}?")
    session.console.rows(KEYS, [_work(settings, lambda service: service.revoke(found.id))])


async def _created(service: KeyService, name: str, offer: Offer | None) -> ListedResource:
    return await service.resource((await service.create_resource(name, offer)).name)


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
    """Create, list and cap the resources that keys open."""


resources.add_command(caps.cap)
resources.add_command(caps.list_caps)


@resources.command(
    "create",
    examples=(
        "overnight resources create search",
        "overnight resources create search --offer msdn",
        "overnight resources create search --data-dir data",
    ),
    details=_ABOUT_OFFERS + "\n\n" + _WHERE,
)
@click.argument("name", metavar="NAME")
@click.option("--offer", type=click.Choice(OFFERS), help="Offer whose quotas apply [default: none]")
@data_folder
@pass_session
def create_resource(session: Session, settings: Settings, name: str, offer: str | None) -> None:
    """Create a resource."""
    from overnight.domain.quota import Offer

    chosen = Offer(offer) if offer else None
    session.console.rows(RESOURCES, [_work(settings, lambda service: _created(service, name, chosen), new=True)])
    session.console.suggest(f"`overnight keys create --resource {name}` makes a key that opens it")


@resources.command(
    "set",
    examples=(
        "overnight resources set search --offer enterprise",
        "overnight resources set search --offer none",
        "overnight resources set default --offer msdn --data-dir data",
    ),
    details=_ABOUT_OFFERS + "\n\n" + _WHERE,
)
@click.argument("name", metavar="NAME")
@click.option("--offer", type=click.Choice((*OFFERS, "none")), required=True, help="Offer whose quotas apply")
@data_folder
@pass_session
def set_resource(session: Session, settings: Settings, name: str, offer: str) -> None:
    """Put a resource on an offer."""
    from overnight.bootstrap.quotas import with_quotas
    from overnight.domain.quota import Offer

    chosen = None if offer == "none" else Offer(offer)
    with_quotas(settings, lambda admin: admin.put_offer(name, chosen))
    session.console.rows(RESOURCES, [_work(settings, lambda service: service.resource(name))])


@resources.command(
    "list",
    examples=(
        "overnight resources list",
        "overnight resources list --json=name",
        "overnight resources list --keys-file keys.txt",
    ),
    details="Those that the key file names are marked; the service creates them when it starts.\n\n" + _WHERE,
)
@click.option("--keys-file", metavar="FILE", type=click.Path(path_type=Path), help="File with keys of the service")
@data_folder
@pass_session
def list_resources(session: Session, settings: Settings, keys_file: Path | None) -> None:
    """List resources, oldest first."""
    from overnight.bootstrap.keys import read_keys, with_keys

    named = settings if keys_file is None else settings.model_copy(update={"keys_file": keys_file})
    in_file = read_keys(named).values()
    session.console.rows(RESOURCES, with_keys(named, lambda service: service.resources(), in_file=in_file))
