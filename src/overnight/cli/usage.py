"""`overnight usage`: what was used and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from overnight.cli.commands import Command
from overnight.cli.console import Column, Shape, count_column
from overnight.cli.folder import settings_of
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.client import CapState, UsageDay
    from overnight.config import Settings
    from overnight.services.usage import PricedTotal, UsageQuery


def _encoded(thing: object) -> bytes:
    import msgspec

    return msgspec.json.encode(thing)


def _cost_of(priced: PricedTotal) -> str:
    from overnight.domain.price import money

    return "" if priced.cost is None else money(priced.cost)


def _flat(priced: PricedTotal) -> bytes:
    import msgspec

    return _encoded(msgspec.structs.asdict(priced.total) | {"cost": _cost_of(priced) or None})


DAYS: Shape[UsageDay] = Shape(
    (
        Column("day", lambda each: each.day),
        Column("deployment", lambda each: each.deployment),
        count_column("done", lambda each: each.request_counts.completed),
        count_column("failed", lambda each: each.request_counts.failed),
        count_column("input", lambda each: each.usage.input_tokens),
        count_column("cached", lambda each: each.usage.input_tokens_details.cached_tokens),
        count_column("output", lambda each: each.usage.output_tokens),
        count_column("reasoning", lambda each: each.usage.output_tokens_details.reasoning_tokens),
        Column("cost", lambda each: each.cost or "", right=True),
    ),
    _encoded,
)

TOTALS: Shape[PricedTotal] = Shape(
    (
        Column("resource", lambda each: each.total.resource),
        Column("deployment", lambda each: each.total.deployment),
        count_column("done", lambda each: each.total.completed),
        count_column("failed", lambda each: each.total.failed),
        count_column("input", lambda each: each.total.usage.input_tokens),
        count_column("output", lambda each: each.total.usage.output_tokens),
        Column("cost", _cost_of, right=True),
    ),
    _flat,
)


@click.command(
    cls=Command,
    examples=(
        "overnight usage",
        "overnight usage --from 2026-11-01 --to 2026-11-30",
        "overnight usage --deployment gpt-oss-20b --json",
        "overnight usage --all-resources --data-dir data",
    ),
    details="Days are those of UTC, on which results were recorded; without `--from` the last 30 days are shown. With "
    "`--json` the whole report is printed as the service sends it. Costs are told by the prices that the settings of "
    "the service name now.\n\nWith `--all-resources` the data folder itself is read, also while the service runs on "
    "it: the sums of each resource, for whoever runs the service.",
)
@click.option("--from", "first", metavar="DAY", help="First day, YYYY-MM-DD [default: 30 days in all]")
@click.option("--to", "last", metavar="DAY", help="Last day, YYYY-MM-DD [default: today]")
@click.option("--deployment", metavar="NAME", help="Only this deployment")
@click.option("--all-resources", is_flag=True, help="The sums of each resource, from the data folder")
@click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the data")
@click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings file (TOML)")
@pass_session
def usage(
    session: Session,
    /,
    first: str | None,
    last: str | None,
    deployment: str | None,
    all_resources: bool,
    **folder: Path | None,
) -> None:
    """Show what was used and what it cost, by day."""
    if all_resources:
        from overnight.services.usage import UsageQuery

        _show_all(session, UsageQuery(first=first, last=last, deployment=deployment), settings_of(**folder))
        return
    if any(folder.values()):
        message = "`--data-dir` and `--config` go with `--all-resources`"
        raise click.UsageError(message)
    report = session.client.usage(first=first, last=last, deployment=deployment)
    if session.options.json is not None:
        session.console.write(choose(session, report.raw))
        return
    session.console.rows(DAYS, report.data)
    days = report.first_day if report.first_day == report.last_day else f"{report.first_day} to {report.last_day}"
    tokens = f"{report.usage.input_tokens:,} input and {report.usage.output_tokens:,} output tokens"
    cost = f", {report.cost} {report.currency}" if report.cost else ""
    session.console.say(f"{days} (UTC): {tokens}{cost}" if report.data else f"{days} (UTC): nothing was used")
    for cap in report.caps:
        session.console.say(_cap_text(cap, report.currency))


def choose(session: Session, raw: bytes) -> bytes:
    """Give a report as `--json` asks for it."""
    from overnight.cli.console import choose_fields

    return choose_fields(raw, session.options.json or ()) + b"\n"


def _cap_text(cap: CapState, currency: str) -> str:
    unit = "tokens" if cap.measure == "tokens" else currency
    used, limit = (f"{int(each):,}" if cap.measure == "tokens" else each for each in (cap.used, cap.limit))
    state = ": reached, nothing more runs" if cap.reached else ""
    return f"cap: {used} of {limit} {unit} used this {cap.period}{state}"


def _show_all(session: Session, query: UsageQuery, settings: Settings) -> None:
    from overnight.bootstrap.usage import with_usage

    found = with_usage(settings, lambda service: service.totals(query))
    session.console.rows(TOTALS, found)
    if not found:
        session.console.say("nothing was used in these days")
