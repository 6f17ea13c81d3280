"""`overnight resources cap …`: on the data folder itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overnight.cli.commands import Command
from overnight.cli.console import Column, Shape
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError
from overnight.cli.folder import data_folder
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.domain.cap import CapState, Measure, Period

_WHERE = "Works on the data folder itself, also while the service runs on it, which notices within a second."


def _shown(amount: int, measure: Measure) -> str:
    from overnight.domain.cap import Measure
    from overnight.domain.price import money

    return str(amount) if measure is Measure.TOKENS else money(amount)


def _pleasant(amount: int, measure: Measure) -> str:
    from overnight.domain.cap import Measure

    return f"{amount:,}" if measure is Measure.TOKENS else _shown(amount, measure)


def _raw(state: CapState) -> bytes:
    import msgspec

    cap = state.cap
    limit, used = _shown(cap.amount, cap.measure), _shown(state.used, cap.measure)
    return msgspec.json.encode(
        {
            "resource": cap.resource,
            "period": cap.period,
            "measure": cap.measure,
            "limit": limit,
            "used": used,
            "reached": state.reached,
        }
    )


CAPS: Shape[CapState] = Shape(
    (
        Column("resource", lambda each: each.cap.resource),
        Column("per", lambda each: each.cap.period),
        Column("of", lambda each: each.cap.measure),
        Column(
            "limit",
            lambda each: _shown(each.cap.amount, each.cap.measure),
            lambda each: _pleasant(each.cap.amount, each.cap.measure),
            right=True,
        ),
        Column(
            "used",
            lambda each: _shown(each.used, each.cap.measure),
            lambda each: _pleasant(each.used, each.cap.measure),
            right=True,
        ),
        Column("state", lambda each: "reached" if each.reached else "open"),
    ),
    _raw,
)


@click.command(
    cls=Command,
    name="cap",
    examples=(
        "overnight resources cap search --tokens 5000000 --per day",
        "overnight resources cap search --spend 200 --per month",
        "overnight resources cap search --spend none --per month",
    ),
    details="Once a resource has used so much in the day or month that runs (UTC), its new batches fail with "
    "`billing_hard_limit_reached`, and those that run start no more requests and end as cancelled, with everything "
    "that is done. A resource may have a cap of each kind; `none` takes one away. Money is counted by the prices in "
    "the settings: what has no price costs nothing.\n\n" + _WHERE,
)
@click.argument("name", metavar="NAME")
@click.option("--tokens", metavar="N|none", help="Most input and output tokens together")
@click.option("--spend", metavar="X|none", help="Most money, in the currency of the settings")
@click.option("--per", type=click.Choice(("day", "month")), required=True, help="How long it counts")
@data_folder
@pass_session
def cap(session: Session, settings: Settings, name: str, tokens: str | None, spend: str | None, per: str) -> None:
    """Bound what a resource may use in a day or a month."""
    from overnight.bootstrap.usage import with_usage
    from overnight.domain.cap import Cap, Measure, Period
    from overnight.domain.ids import ResourceId

    if (tokens is None) == (spend is None):
        message = "say either --tokens or --spend"
        raise click.UsageError(message)
    measure = Measure.SPEND if tokens is None else Measure.TOKENS
    said = spend if tokens is None else tokens
    resource, period = ResourceId(name), Period(per)
    _require_resource(settings, name)
    if said == "none":
        _remove(session, settings, resource, period, measure)
        return
    wanted = Cap(resource=resource, period=period, measure=measure, amount=_amount(str(said), measure))
    session.console.rows(CAPS, [with_usage(settings, lambda service: service.set_cap(wanted))])


@click.command(
    cls=Command,
    name="caps",
    examples=("overnight resources caps", "overnight resources caps --json"),
    details=_WHERE,
)
@data_folder
@pass_session
def list_caps(session: Session, settings: Settings) -> None:
    """List the caps of all resources, and how much of each is used."""
    from overnight.bootstrap.usage import with_usage

    found = with_usage(settings, lambda service: service.caps())
    session.console.rows(CAPS, found)
    if not found:
        session.console.say("no cap yet; `overnight resources cap NAME --tokens N --per day` sets one")


def _remove(session: Session, settings: Settings, resource: str, period: Period, measure: Measure) -> None:
    from overnight.bootstrap.usage import with_usage
    from overnight.domain.ids import ResourceId

    owner = ResourceId(resource)
    removed = with_usage(settings, lambda service: service.remove_cap(owner, period, measure))
    session.console.say("the cap is taken away" if removed else "there was no such cap")


def _require_resource(settings: Settings, name: str) -> None:
    """Refuse a name that nobody has: a typing error must not leave a resource without its cap."""
    from overnight.bootstrap.keys import with_keys

    known = {"default"} | {each.name for each in with_keys(settings, lambda service: service.resources())}
    if name not in known:
        hint = f"`overnight resources create {name}` makes it; those of a key file are made when the service starts"
        raise CliError(f"there is no resource `{name}`", hint, ExitCode.USAGE)


def _amount(said: str, measure: Measure) -> int:
    from overnight.domain.cap import Measure, parse_amount

    try:
        return parse_amount(said, measure)
    except ValueError as error:
        what = "a number of tokens" if measure is Measure.TOKENS else "an amount with at most 6 decimal places"
        raise click.BadParameter(f"`{said}` is not {what}", param_hint=f"'--{measure}'") from error
