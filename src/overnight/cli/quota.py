"""`overnight quota …`: what is left of the quotas, over the API; setting them, on the data folder itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from overnight.cli.commands import Group
from overnight.cli.console import Column, Shape, count_column
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError
from overnight.cli.folder import data_folder
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.client import Quota
    from overnight.config import Settings
    from overnight.domain.quota import Own
    from overnight.services.quotas import QuotaAdmin

R = TypeVar("R")

_WHERE = (
    "Works on the data folder itself, also while the service runs on it, which takes up changes at once. A resource's "
    "own number counts before that of its offer, and that before the one in the deployment's settings."
)
_NO_LIMIT = "none"


def _work(settings: Settings, work: Callable[[QuotaAdmin], Awaitable[R]]) -> R:
    from overnight.bootstrap.quotas import with_quotas

    return with_quotas(settings, work)


def _tokens(tokens: int | None) -> str:
    return _NO_LIMIT if tokens is None else str(tokens)


def _tokens_pleasant(tokens: int | None) -> str:
    return _NO_LIMIT if tokens is None else f"{tokens:,}"


def _basis(quota: Quota) -> str:
    return f"offer {quota.offer}" if quota.offer else quota.basis


def _encoded(own: Own) -> bytes:
    import msgspec

    return msgspec.json.encode(own)


QUOTAS: Shape[Quota] = Shape(
    (
        Column("deployment", lambda each: each.deployment, wraps=True),
        Column("model", lambda each: each.model, wraps=True),
        count_column("enqueued", lambda each: each.enqueued_tokens),
        Column(
            "limit",
            lambda each: _tokens(each.maximum_enqueued_tokens),
            lambda each: _tokens_pleasant(each.maximum_enqueued_tokens),
            right=True,
        ),
        Column(
            "available",
            lambda each: _tokens(each.available_tokens),
            lambda each: "" if each.available_tokens is None else f"{each.available_tokens:,}",
            right=True,
        ),
        Column("from", _basis),
    ),
    lambda each: each.raw,
)
OWN: Shape[Own] = Shape(
    (
        Column("resource", lambda each: each.resource),
        Column("deployment", lambda each: each.deployment, wraps=True),
        Column("limit", lambda each: _tokens(each.tokens), lambda each: _tokens_pleasant(each.tokens), right=True),
    ),
    _encoded,
)


@click.group(
    cls=Group,
    examples=(
        "overnight quota",
        "overnight quota set search gpt-4o 2000000",
        "overnight quota own",
    ),
    alone="list",
    details="A quota bounds the prompt tokens of unfinished requests that a resource has in running batches of one "
    "deployment. Without a command it lists them, as `overnight quota list` does.",
)
def quota() -> None:
    """Show how many tokens may still be enqueued, and set quotas."""


@quota.command(
    "list",
    examples=(
        "overnight quota list",
        "overnight quota list --json",
        "overnight quota list --json=deployment,available_tokens",
    ),
    details="Asks the service, for the resource that the key opens.",
)
@pass_session
def list_(session: Session) -> None:
    """List the quota of each deployment and what is left of it."""
    session.console.rows(QUOTAS, session.client.quotas())


@quota.command(
    "set",
    examples=(
        "overnight quota set search gpt-4o 2000000",
        "overnight quota set search gpt-4o --none",
        "overnight quota set default my-model 0 --data-dir data",
    ),
    details="With `--none` there is no limit for this resource and deployment, whatever its offer says. A lower number "
    "stops no batch that runs.\n\n" + _WHERE,
)
@click.argument("resource", metavar="RESOURCE")
@click.argument("deployment", metavar="DEPLOYMENT")
@click.argument("tokens", metavar="[TOKENS]", type=click.IntRange(min=0), required=False)
@click.option("--none", "unlimited", is_flag=True, help="No limit")
@data_folder
@pass_session
def set_(
    session: Session, settings: Settings, resource: str, deployment: str, tokens: int | None, *, unlimited: bool
) -> None:
    """Set a resource's own quota for a deployment."""
    if (tokens is None) is not unlimited:
        hint = f"`overnight quota set {resource} {deployment} 1000000`, or `--none` for no limit"
        raise CliError("give either a number of tokens or `--none`", hint, ExitCode.USAGE)
    session.console.rows(OWN, [_work(settings, lambda admin: admin.put(resource, deployment, tokens))])


@quota.command(
    examples=(
        "overnight quota clear search gpt-4o",
        "overnight quota clear search gpt-4o --data-dir data",
        "overnight quota clear default my-model",
    ),
    details="Its offer applies again, or the deployment's setting.\n\n" + _WHERE,
)
@click.argument("resource", metavar="RESOURCE")
@click.argument("deployment", metavar="DEPLOYMENT")
@data_folder
@pass_session
def clear(session: Session, settings: Settings, resource: str, deployment: str) -> None:
    """Forget a resource's own quota for a deployment."""
    _work(settings, lambda admin: admin.remove(resource, deployment))
    session.console.say(f"{resource} has no number of its own for {deployment} any more")


@quota.command(
    examples=("overnight quota own", "overnight quota own --resource search", "overnight quota own --json"),
    details=_WHERE,
)
@click.option("--resource", metavar="NAME", help="Only those of this resource")
@data_folder
@pass_session
def own(session: Session, settings: Settings, resource: str | None) -> None:
    """List the quotas that resources have of their own."""
    found = _work(settings, lambda admin: admin.own(resource))
    session.console.rows(OWN, found)
    if not found:
        session.console.say("no resource has a number of its own; `overnight quota set` gives one")
