"""`overnight webhooks …`: who is told when a batch ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from overnight import human
from overnight.cli import ids, shapes
from overnight.cli.commands import Group
from overnight.cli.console import Column, Shape
from overnight.cli.exit_codes import ExitCode
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.client import WebhookDelivery, WebhookEndpoint, WebhookTest

EVENT_TYPES = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
ID = "ID|@last|-"
PAGE = 20
_SECRET = "The signing secret is shown this once; receivers check deliveries with it."  # noqa: S105 - a sentence


def _ago(timestamp: int | None) -> str:
    return human.ago(timestamp, time.time())


def _last_outcome(delivery: WebhookDelivery) -> str:
    if not delivery.attempts:
        return ""
    last = delivery.attempts[-1]
    return str(last.status_code) if last.status_code else last.error or ""


ENDPOINTS: Shape[WebhookEndpoint] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("name", lambda each: each.name),
        Column("url", lambda each: each.url),
        Column("events", lambda each: ",".join(each.event_types)),
        Column("secret", lambda each: each.signing_secret_hint or ""),
        Column("created", lambda each: human.moment(each.created_at), lambda each: _ago(each.created_at)),
    ),
    lambda each: each.raw,
)
WITH_SECRET: Shape[WebhookEndpoint] = Shape(
    (Column("id", lambda each: each.id), Column("secret", lambda each: each.signing_secret or "")),
    lambda each: each.raw,
)
TESTS: Shape[WebhookTest] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("event", lambda each: each.event_type),
        Column("answer", lambda each: str(each.status_code)),
    ),
    lambda each: each.raw,
)
DELIVERIES: Shape[WebhookDelivery] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("event", lambda each: each.event_type, lambda each: each.event_type.removeprefix("batch.")),
        Column("batch", lambda each: each.batch_id),
        Column("status", lambda each: each.status),
        Column("attempts", lambda each: str(len(each.attempts)), right=True),
        Column("last answer", _last_outcome),
    ),
    lambda each: each.raw,
)


@click.group(
    cls=Group,
    examples=(
        "overnight webhooks create https://example.com/hook",
        "overnight webhooks test @last",
        "overnight webhooks deliveries @last",
    ),
    details="Wherever an ID is asked for, a unique beginning of it will do, `@last` is the newest receiver, and `-` "
    "reads the id from stdin.",
)
def webhooks() -> None:
    """Manage receivers that are told when a batch ends."""


@webhooks.command(
    examples=(
        "overnight webhooks create https://example.com/hook",
        "overnight webhooks create https://example.com/hook --event batch.failed --name alerts",
        "overnight webhooks create https://example.com/hook --json=id,signing_secret",
    ),
    details=_SECRET,
)
@click.argument("target", metavar="URL")
@click.option("--name", metavar="NAME", help="A name for people [default: the host]")
@click.option("--event", "events", type=click.Choice(EVENT_TYPES), multiple=True, help="Only these [default: all]")
@pass_session
def create(session: Session, target: str, name: str | None, events: tuple[str, ...]) -> None:
    """Add a receiver."""
    named = name or urlsplit(target).hostname or target
    created = session.client.webhooks.create(name=named, url=target, event_types=events or EVENT_TYPES)
    session.console.rows(WITH_SECRET, [created])
    session.console.suggest(f"`overnight webhooks test {created.id}` sends it a sample event")


@webhooks.command(
    "list",
    examples=("overnight webhooks list", "overnight webhooks list --limit 5", "overnight webhooks list --json=id,url"),
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=PAGE, help=f"How many [default: {PAGE}]")
@pass_session
def list_(session: Session, limit: int) -> None:
    """List receivers, newest first."""
    found = list(session.client.webhooks.list(limit=limit))
    session.console.rows(ENDPOINTS, found)
    if not found:
        session.console.say("no webhook yet; `overnight webhooks create URL` makes one")


@webhooks.command(examples=("overnight webhooks get @last", "overnight webhooks get we_1a2b --json"))
@click.argument("endpoint_id", metavar=ID)
@pass_session
def get(session: Session, endpoint_id: str) -> None:
    """Show one receiver."""
    session.console.record(ENDPOINTS, ids.webhook(session.client, endpoint_id))


@webhooks.command(
    examples=("overnight webhooks delete we_1a2b", "overnight webhooks delete we_1a2b --yes"),
    details="It is told nothing any more, also of batches that have ended. This cannot be undone, so it asks first.",
)
@click.argument("endpoint_id", metavar=ID)
@pass_session
def delete(session: Session, endpoint_id: str) -> None:
    """Delete a receiver."""
    found = ids.webhook(session.client, endpoint_id)
    session.console.confirm(f"delete {found.name} ({found.id}, {found.url})?")
    session.console.rows(shapes.DELETED, [session.client.webhooks.delete(found.id)])


@webhooks.command(
    examples=("overnight webhooks rotate we_1a2b --keep-old", "overnight webhooks rotate we_1a2b --yes"),
    details="Without `--keep-old` the old secret signs nothing any more, so it asks first. " + _SECRET,
)
@click.argument("endpoint_id", metavar=ID)
@click.option("--keep-old", is_flag=True, help="Sign with the old secret, too, for another 24 hours")
@pass_session
def rotate(session: Session, endpoint_id: str, keep_old: bool) -> None:
    """Replace the signing secret of a receiver."""
    found = ids.webhook(session.client, endpoint_id)
    if not keep_old:
        session.console.confirm(f"replace the secret of {found.name} ({found.id}) at once?")
    session.console.rows(WITH_SECRET, [session.client.webhooks.rotate(found.id, keep_old=keep_old)])


@webhooks.command(
    examples=("overnight webhooks test @last", "overnight webhooks test we_1a2b --event batch.failed"),
    details="Succeeds if the receiver answers with 2xx. The batch that the event names does not exist.",
)
@click.argument("endpoint_id", metavar=ID)
@click.option("--event", type=click.Choice(EVENT_TYPES), default=EVENT_TYPES[0], help=f"[default: {EVENT_TYPES[0]}]")
@pass_session
def test(session: Session, endpoint_id: str, event: str) -> ExitCode:
    """Send a sample event to a receiver now."""
    found = ids.webhook(session.client, endpoint_id)
    tested = session.client.webhooks.test(found.id, event)
    session.console.rows(TESTS, [tested])
    taken = 200 <= tested.status_code < 300  # noqa: PLR2004 - 2xx
    return ExitCode.OK if taken else ExitCode.FAILED


@webhooks.command(
    examples=(
        "overnight webhooks deliveries @last",
        "overnight webhooks deliveries we_1a2b --limit 5",
        "overnight webhooks deliveries we_1a2b --json=id,status,attempts",
    ),
    details="Each is kept for a week; `--json` has every attempt.",
)
@click.argument("endpoint_id", metavar=ID)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=PAGE, help=f"How many [default: {PAGE}]")
@pass_session
def deliveries(session: Session, endpoint_id: str, limit: int) -> None:
    """List what a receiver was told, newest first."""
    found = ids.webhook(session.client, endpoint_id)
    told = list(session.client.webhooks.deliveries(found.id, limit=limit))
    session.console.rows(DELIVERIES, told)
    if not told:
        session.console.say("nothing yet: no batch has ended since the webhook was created")
